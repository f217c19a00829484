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
# What each room may import of the others.
BASE = {"config", "io"}
MAY_IMPORT = {
    "config": set(),
    "io": {"config"},
    "assets": BASE,
    "data": BASE | {"assets"},
    "recommenders": BASE | {"data"},
    "audit": BASE | {"data", "recommenders"},
    "policy": BASE,
    "objectives": set(),
    "training": BASE | {"assets", "policy", "objectives", "data", "recommenders"},
    "evaluation": BASE | {"data", "policy"},
}
MAY_IMPORT["orchestration"] = {*MAY_IMPORT}
MAY_IMPORT["bench"] = {*MAY_IMPORT}
MAY_IMPORT["cli"] = {*MAY_IMPORT}
ONLY_IN = {
    "ray": lambda module: module.startswith("raypo.orchestration"),
    "deepspeed": lambda module: module == "raypo.training.deepspeed_engine",
    "vllm": lambda module: module.startswith("raypo.evaluation.vllm"),
}


def imported(module: str) -> set[str]:
    """Modules and names that a module imports, as dotted paths: `from a import b` gives `a.b`."""
    file = PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_room_has_its_boundaries():
    rooms = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert rooms == {*MAY_IMPORT}
    loose = {file.name for file in PACKAGE.glob("*.py")}
    assert loose == {"__init__.py"}


@pytest.mark.parametrize("module", [name for name in MODULES if name.count(".") >= 2])
def test_rooms_import_only_what_they_may(module):
    room = module.split(".")[1]
    ours = {name.split(".")[1] for name in imported(module) if name.startswith("raypo.")}
    assert ours <= MAY_IMPORT[room] | {room}


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
        ("raypo.cli.main", ("torch", "ray", "transformers", "pandas")),
    ],
)
def test_importing_stays_light(module, absent):
    code = f"import sys, {module}; print(*[n for n in {absent!r} if n in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == []
