"""Answers of language models from pools of engines and scorers behind Ray Data."""
