"""`python serve/engine_pool.py --config serve/engine_pool.yaml data=… output=… adapters=…`.

Starts only the pool of vLLM engines of `raypo evaluate`: greedy answers of every adapter to the
test rows, without ranking by likelihood.
"""

from raypo.cli import stage_main

if __name__ == "__main__":
    stage_main("evaluate")
