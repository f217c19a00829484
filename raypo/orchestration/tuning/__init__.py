"""Searches over alignment settings with Ray Tune."""
