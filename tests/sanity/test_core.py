"""`raypo[core]`: what runs with torch, transformers, PEFT, numpy, pandas and safetensors alone."""

import importlib.metadata
import subprocess
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["core"]]
# Of transformers' command line, which brings pydantic; a bare machine may lack it.
LEFT_OUT = {"typer"}


def with_requirements(requirements: list[str]) -> set[str]:
    """Distributions that pip would install for these, by name."""
    found: set[str] = set()
    waiting = [Requirement(one) for one in requirements]
    while waiting:
        one = waiting.pop()
        applies = one.marker is None or one.marker.evaluate({"extra": ""})
        if one.name in found | LEFT_OUT or not applies:
            continue
        found.add(one.name)
        waiting += [Requirement(more) for more in importlib.metadata.requires(one.name) or ()]
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment with raypo's core and what it requires, and no more."""
    folder = tmp_path_factory.mktemp("core")
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    for name in with_requirements(CORE):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    (site / "raypo").symlink_to(ROOT / "raypo")
    return folder / "bin" / "python"


def run(python: Path, *arguments: str) -> str:
    answer = subprocess.run([python, *arguments], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_the_environment_has_none_of_the_cluster(python):
    code = (
        "import importlib.util as u; print([n for n in ('ray', 'deepspeed', 'vllm', 'pydantic', "
        "'pyarrow', 'scipy', 'optuna', 'gguf', 'tensorboardX') if u.find_spec(n)])"
    )
    assert run(python, "-c", code).strip() == "[]"


def test_a_policy_is_trained_by_an_objective(python):
    run(python, "-W", "ignore", str(Path(__file__).with_name("core_step.py")))


def test_the_gpu_benchmark_starts(python, tmp_path):
    script = str(ROOT / "benchmarks" / "gpu.py")
    dry = ["--device", "cpu", "--model", "tiny", "--minutes", "0", "--output", str(tmp_path)]
    assert "0 of 8 measurements" in run(python, script, *dry)
