"""Set-up says what a machine lacks before it installs anything, and picks a Python that works."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "dirname", "mktemp", "rm")
# Runs the probe of `.ci/setup` in this Python as if it were another version.
OTHER_VERSION = """#!{bash}
exec {python} -c 'import sys; sys.version_info = ({version}, 0, "final", 0); exec(sys.argv[1])' "$2"
"""


class Machine:
    """A copy of `.ci/setup` in a folder of its own, and a PATH with nothing but what is added."""

    def __init__(self, folder):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        (folder / ".ci").mkdir()
        shutil.copy(ROOT / ".ci/setup", folder / ".ci/setup")
        self.bash = shutil.which("bash")
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))

    def add(self, name, script="exit 0"):
        (self.bin / name).write_text(script if script.startswith("#!") else self.shell(script))
        (self.bin / name).chmod(0o755)

    def shell(self, script):
        return f"#!{self.bash}\n{script}\n"

    def add_python(self, name, version=None):
        if version is None:
            self.add(name, f'exec {sys.executable} "$@"')
        else:
            text = OTHER_VERSION.format(bash=self.bash, python=sys.executable, version=version)
            self.add(name, text)

    def setup(self, *arguments, **environment):
        return subprocess.run(
            [self.bash, ".ci/setup", *arguments],
            cwd=self.folder,
            env={"PATH": str(self.bin), "HOME": os.environ["HOME"], **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def assert_refused(machine, answer, *messages):
    """Exit code 2, the reason on stderr, nothing on stdout, and no environment made."""
    assert answer.returncode == 2
    assert answer.stdout == ""
    for message in messages:
        assert message in answer.stderr
    assert not (machine.folder / ".venv").exists()


def test_a_machine_without_a_compiler_gets_the_name_of_a_package(machine):
    machine.add_python("python3.12")
    packages = ("apt-get install g++", "dnf install gcc-c++", "xcode-select --install")
    assert_refused(machine, machine.setup(), "no C++ compiler", *packages)


def test_a_compiler_that_does_not_compile_is_none(machine):
    machine.add_python("python3.12")
    machine.add("c++", "exit 1")
    assert_refused(machine, machine.setup(), "no C++ compiler")
    machine.add("g++")
    assert_refused(machine, machine.setup(CXX="clang++"), "CXX=clang++: no C++ compiler")
    assert machine.setup("--print-python", CXX="g++ -O2").returncode == 0


def test_a_machine_without_python_and_uv_gets_a_message(machine):
    machine.add("c++")
    assert_refused(machine, machine.setup(), "no usable Python", "docs.astral.sh/uv")


def test_what_is_wrong_with_each_python_is_said(machine):
    machine.add("c++")
    machine.add("python3.11", "echo 'pyenv: python3.11: command not found' >&2; exit 127")
    machine.add_python("python3", "3, 9")
    answer = machine.setup()
    assert_refused(machine, answer, f"{machine.bin}/python3.11 does not run")
    assert f"{machine.bin}/python3 is Python 3.9; raypo needs 3.11, 3.12 or 3.13" in answer.stderr


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["python3", "python3.13"], "python3.13"),
        (["python3.13", "python3.12"], "python3.12"),
        (["python3.12", "python3.11"], "python3.11"),
        (["python3"], "python3"),
    ],
)
def test_the_first_python_that_works_is_chosen(machine, names, chosen):
    machine.add("c++")
    machine.add("python3.10", "exit 1")
    for name in names:
        machine.add_python(name)
    answer = machine.setup("--print-python")
    assert (answer.returncode, answer.stdout.strip()) == (0, f"{machine.bin}/{chosen}")
    assert not (machine.folder / ".venv").exists()


def test_a_python_that_cannot_be_used_is_passed_over(machine, tmp_path):
    machine.add("c++")
    machine.add("python3.11", "exit 127")
    machine.add_python("python3.12", "3, 14")
    machine.add_python("python3.13")
    assert machine.setup("--print-python").stdout.strip() == f"{machine.bin}/python3.13"


def test_the_same_name_further_along_the_path_is_tried_too(machine, tmp_path):
    machine.add("c++")
    machine.add_python("python3.12")
    shims = tmp_path / "shims"
    shims.mkdir()
    machine.add("shim")  # runs, and is no Python
    (machine.bin / "shim").rename(shims / "python3.12")
    answer = machine.setup("--print-python", PATH=f"{shims}:{machine.bin}")
    assert answer.stdout.strip() == f"{machine.bin}/python3.12"


def test_a_python_that_was_named_is_used_or_refused(machine):
    machine.add("c++")
    machine.add_python("python3.11")
    machine.add_python("mine")
    assert machine.setup("--print-python", PYTHON="mine").stdout.strip() == "mine"
    machine.add_python("old", "3, 10")
    assert_refused(machine, machine.setup(PYTHON="old"), "PYTHON=old is Python 3.10")
    assert_refused(machine, machine.setup(PYTHON="none"), "PYTHON=none does not run")


def test_without_a_usable_python_uv_is_asked_for_one(machine):
    machine.add("c++")
    machine.add_python("python3", "3, 9")
    machine.add("uv", 'echo "$@"; exit 7')
    assert machine.setup("--print-python").stdout.strip() == f"Python 3.12 from {machine.bin}/uv"
    answer = machine.setup()
    assert answer.returncode == 7
    wanted = "venv --seed --python-preference only-managed --python 3.12 .venv"
    assert answer.stdout.splitlines()[-1] == wanted


def test_set_up_and_package_want_the_same_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["requires-python"] == ">=3.11,<3.14"
    script = (ROOT / ".ci/setup").read_text()
    assert "(3, 11) <= sys.version_info[:2] <= (3, 13)" in script
    torch = next(
        one for one in project["project"]["optional-dependencies"]["cpu"] if "torch" in one
    )
    assert f"torch={torch}\n" in script
    # Checked against the oldest, so that nothing newer slips in.
    assert project["tool"]["ruff"]["target-version"] == "py311"
    assert project["tool"]["mypy"]["python_version"] == "3.11"
