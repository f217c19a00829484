"""Trials of a search, and the HTML page about them."""
