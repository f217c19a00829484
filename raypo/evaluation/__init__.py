"""Requests, parsed answers, metrics with intervals, significance tests, tables and reports."""
