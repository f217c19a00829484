# `make demo` and `make test` are all you need: both set up .venv first if it is missing. Set-up takes
# PYTHON=… and CXX=…; .ci/setup says what it chooses without them.
SCALE ?= demo
SEED ?= 0
# Tests mostly wait for processes to start: two at a time take three quarters of the time of one.
# A file's tests share clusters and engines, and stay together; the longest files start early.
PYTEST = .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test fast check setup clean

demo: .venv/.ready
	.venv/bin/raypo demo --scale $(SCALE) --seed $(SEED)

test: .venv/.ready
	$(PYTEST)

fast: .venv/.ready
	$(PYTEST) -m "not slow"

check: .venv/.ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

setup: .venv/.ready

.venv/.ready: pyproject.toml .ci/setup
	bash .ci/setup
	touch .venv/.ready

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
