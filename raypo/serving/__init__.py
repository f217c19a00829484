"""Serving: requests over HTTP, ranked by the models of finished runs."""
