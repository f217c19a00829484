"""Train and evaluate recommenders made from language models on a Ray cluster."""

__version__ = "0.1.0"
