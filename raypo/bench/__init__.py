"""Benchmarks behind `raypo bench`: each measures all of its variants in one run."""
