"""The boundaries of the rooms: which may import which, and where each heavy library is imported."""

import ast
import functools
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "raypo"
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
    "recommenders": BASE | {"assets", "data"},
    "audit": BASE | {"data", "recommenders"},
    "policy": BASE,
    "objectives": set(),
    "training": BASE | {"assets", "policy", "objectives", "data", "recommenders"},
    "evaluation": BASE | {"data", "policy"},
    "serving": BASE | {"assets", "data", "policy", "recommenders"},
}
MAY_IMPORT["orchestration"] = {*MAY_IMPORT}
MAY_IMPORT["bench"] = {*MAY_IMPORT}
MAY_IMPORT["cli"] = {*MAY_IMPORT}
ONLY_IN = {
    "ray": lambda module: module.startswith("raypo.orchestration"),
    "deepspeed": lambda module: module == "raypo.training.deepspeed_engine",
    "vllm": lambda module: module.startswith("raypo.evaluation.vllm"),
}
# What a room may import beside the standard library and other rooms, where that is little.
LIBRARIES = {
    "config": {"pydantic", "yaml"},
    "objectives": {"torch"},
    "cli": {"pydantic", "rich", "torch", "typer"},
}
ENTRY_POINTS = sorted(
    file
    for folder in ("jobs", "tune", "serve", "studies")
    for file in ROOT.glob(f"{folder}/**/*.py")
)


@functools.cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(source: ast.Module) -> set[str]:
    """Modules and names that are imported anywhere in a file, as dotted paths.

    `from a import b` gives `a.b`. So does a use of `a.b` after `import a`, and a text that names
    something of raypo, which Ray or importlib would import.
    """
    names = set()
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "raypo":
                names.add(f"raypo.{node.attr}")
        elif isinstance(node, ast.Constant) and named_by(node.value):
            names.add(node.value)
    return names


def named_by(value: object) -> bool:
    named = re.fullmatch(r"raypo\.(\w+)(\.\w+)*", value) if isinstance(value, str) else None
    return named is not None and named[1] in MAY_IMPORT


def source_of(module: str) -> ast.Module:
    return tree(ROOT.joinpath(*module.split(".")).with_suffix(".py"))


@pytest.mark.parametrize(
    "line",
    [
        "import raypo.policy.logps",
        "import raypo.policy as p",
        "from raypo import policy",
        "from raypo.policy import logps",
        "def f():\n    from raypo.policy.logps import response_logps",
        "def f():\n    import raypo.policy",
        "import raypo\nraypo.policy.logps",
        "importlib.import_module('raypo.policy.logps')",
    ],
)
def test_every_way_to_import_is_seen(line):
    rooms = {name.split(".")[1] for name in imported(ast.parse(line)) if name.startswith("raypo.")}
    assert rooms == {"policy"}


def test_nothing_is_imported_past_the_rooms():
    for module in MODULES:
        assert "raypo.*" not in imported(source_of(module))


def test_every_room_has_its_boundaries():
    rooms = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert rooms == {*MAY_IMPORT}
    loose = {file.name for file in PACKAGE.glob("*.py")}
    assert loose == {"__init__.py", "errors.py"}


@pytest.mark.parametrize("module", [name for name in MODULES if name.count(".") >= 2])
def test_rooms_import_only_what_they_may(module):
    room = module.split(".")[1]
    ours = {name.split(".")[1] for name in imported(source_of(module)) if name.startswith("raypo.")}
    assert ours <= MAY_IMPORT[room] | {room, "errors"}


@pytest.mark.parametrize("room", LIBRARIES)
def test_rooms_use_only_the_libraries_that_they_may(room):
    modules = [name for name in MODULES if name.startswith(f"raypo.{room}.")]
    used = {name.split(".")[0] for module in modules for name in imported(source_of(module))}
    # What only type checkers see is no library.
    assert used - sys.stdlib_module_names - {"raypo", "_typeshed"} <= LIBRARIES[room]


@pytest.mark.parametrize("module", MODULES)
def test_only_the_command_line_prints(module):
    calls = [node for node in ast.walk(source_of(module)) if isinstance(node, ast.Call)]
    prints = any(isinstance(each.func, ast.Name) and each.func.id == "print" for each in calls)
    consoles = any(name.startswith("rich.console") for name in imported(source_of(module)))
    assert module.startswith("raypo.cli.") or not (prints or consoles)


@pytest.mark.parametrize("file", ENTRY_POINTS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_scripts_are_entry_points_alone(file):
    assert imported(tree(file)) == {"raypo.cli.stage_main"}
    described, import_, guarded = tree(file).body
    assert isinstance(described, ast.Expr) and isinstance(import_, ast.ImportFrom)
    assert isinstance(guarded, ast.If) and len(guarded.body) == 1
    assert ast.unparse(guarded.test) == "__name__ == '__main__'"
    assert not list(file.parent.glob("__init__.py"))


@pytest.mark.parametrize("module", MODULES)
def test_what_texts_name_of_raypo_is_there(module):
    for node in ast.walk(source_of(module)):
        if isinstance(node, ast.Constant) and named_by(node.value):
            assert pkgutil.resolve_name(node.value)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("library", ONLY_IN)
def test_heavy_libraries_are_imported_in_one_room(library, module):
    libraries = {name.split(".")[0] for name in imported(source_of(module))}
    assert library not in libraries or ONLY_IN[library](module)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("module", [m.removesuffix(".__init__") for m in MODULES])
def test_every_module_imports_and_has_a_docstring(module):
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
