"""Answers to items, metrics with intervals, rules that know no taste, tables and reports."""
