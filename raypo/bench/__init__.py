"""Benchmarks that anyone can run: `raypo bench …`. Each measures its contenders in one run."""
