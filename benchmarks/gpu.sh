#!/usr/bin/env bash
# `raypo bench gpu` where raypo's core alone is there (PyTorch, transformers, PEFT, numpy, pandas,
# safetensors): `bash benchmarks/gpu.sh --output FOLDER`. The same command goes on where one ended.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" "$here/benchmarks/gpu.py" "$@"
