"""Inference of language models: pools of engines and scorers behind Ray Data."""
