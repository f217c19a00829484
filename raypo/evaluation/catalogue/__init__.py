"""Evaluation over the whole catalogue, in place of sampled candidates."""
