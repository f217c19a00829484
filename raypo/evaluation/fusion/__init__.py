"""Fusion of evaluated models, and what a language model adds to the best without it."""
