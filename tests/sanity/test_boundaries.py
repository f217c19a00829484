"""The rooms' boundaries: who may import whom, and which library lives behind which door."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "raypo"
MODULES = sorted(
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
    for file in PACKAGE.rglob("*.py")
)
# Modules that every room may use, and what each room may import besides.
COMMON = {"config", "runs", "storage"}
MAY_IMPORT = {
    "data": set(),
    "recommenders": {"data"},
    "policy": set(),
    "objectives": set(),
    "training": {"policy", "objectives", "data", "recommenders"},
    "evaluation": {"data", "policy"},
    "orchestration": {
        "data",
        "recommenders",
        "policy",
        "objectives",
        "training",
        "evaluation",
        "display",
    },
}
ONLY_IN = {
    "ray": lambda module: module.startswith("raypo.orchestration"),
    "deepspeed": lambda module: module == "raypo.training.deepspeed_engine",
    "vllm": lambda module: module.startswith("raypo.evaluation.vllm"),
}


def imported(module: str) -> set[str]:
    file = PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("module", MODULES)
def test_rooms_import_only_what_they_may(module):
    room = module.split(".")[1] if module.count(".") >= 2 else None
    if room not in MAY_IMPORT:
        return
    ours = {name.split(".")[1] for name in imported(module) if name.startswith("raypo.")}
    common = set() if room == "objectives" else COMMON
    assert ours <= MAY_IMPORT[room] | common | {room}


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("library", ONLY_IN)
def test_heavy_libraries_live_behind_one_door(library, module):
    libraries = {name.split(".")[0] for name in imported(module)}
    assert library not in libraries or ONLY_IN[library](module)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("module", [m.removesuffix(".__init__") for m in MODULES])
def test_every_module_imports_and_says_what_it_is(module):
    assert importlib.import_module(module).__doc__


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("raypo.objectives", ("ray", "deepspeed", "vllm", "transformers")),
        ("raypo.policy", ("ray", "deepspeed", "vllm")),
        ("raypo.cli", ("torch", "ray", "transformers", "pandas")),
    ],
)
def test_importing_stays_light(module, absent):
    code = f"import sys, {module}; print(*[n for n in {absent!r} if n in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == []
