"""Logs and titles to sequences, splits, candidate sets and prompts; built-in assets."""
