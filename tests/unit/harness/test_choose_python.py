"""`harness/dev/choose_python.sh` chooses the interpreter that `.venv` is made with.

The interpreters are shell scripts here. Each prints what the probe of the script would print with a real one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.runtime.compose import ROOT

pytestmark = pytest.mark.unit

TOOLS = ("bash", "env", "sort", "awk", "wc", "tr", "ls", "cat", "id")


class Machine:
    """A machine with three places for interpreters: PATH, the system's folder and pyenv's versions."""

    def __init__(self, folder: Path) -> None:
        self.path, self.system, self.pyenv = folder / "path", folder / "system", folder / "pyenv"
        self.tools = folder / "tools"
        for each in (self.path, self.system, self.pyenv, self.tools):
            each.mkdir()
        for tool in TOOLS:
            (self.tools / tool).symlink_to(str(shutil.which(tool)))

    def add(
        self,
        file: Path,
        version: str,
        *,
        is_optimised: bool = False,
        can_make_venv: bool = True,
        kind: str = "cpython",
        real: Path | None = None,
    ) -> Path:
        """Write a fake interpreter. `real` is its path without symlinks."""
        line = f"{kind} {version.replace('.', ' ')} {is_optimised:d} {can_make_venv:d} {file}"
        write_script(file, f"printf '%s\\n' '{line}' '{real or file}'")
        return file

    def choose(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script on this machine."""
        known = {
            "PATH": f"{self.path}{os.pathsep}{self.tools}",
            "SYSTEM_BIN": str(self.system),
            "PYENV_ROOT": str(self.pyenv),
        }
        script = str(ROOT / "harness" / "dev" / "choose_python.sh")
        return subprocess.run([script], env=known | environment, capture_output=True, text=True, check=False)

    def choose_path(self) -> Path:
        """Run the script without arguments and return the path that it prints."""
        done = self.choose()
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.strip())


def write_script(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!{shutil.which('sh')}\n{text}\n")
    file.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_an_optimised_build_goes_before_a_newer_one(machine: Machine) -> None:
    machine.add(machine.path / "python3", "3.13.0")
    optimised = machine.add(machine.system / "python3.11", "3.11.2", is_optimised=True)
    assert machine.choose_path() == optimised
    assert "newest of the optimised builds" in machine.choose().stderr


def test_the_newest_of_the_optimised_builds_is_taken(machine: Machine) -> None:
    machine.add(machine.path / "python3.11", "3.11.9", is_optimised=True)
    newest = machine.add(machine.pyenv / "versions/3.14.2/bin/python3", "3.14.2", is_optimised=True)
    machine.add(machine.pyenv / "versions/3.14.1/bin/python3", "3.14.1", is_optimised=True)
    assert machine.choose_path() == newest


def test_without_an_optimised_build_the_newest_is_taken(machine: Machine) -> None:
    machine.add(machine.path / "python3", "3.11.7")
    newest = machine.add(machine.path / "python3.13", "3.13.0")
    assert machine.choose_path() == newest
    assert "no optimised build (PGO) was found" in machine.choose().stderr


def test_of_equal_builds_the_first_in_path_is_taken(machine: Machine) -> None:
    machine.add(machine.system / "python3.12", "3.12.3")
    first = machine.add(machine.path / "python3.12", "3.12.3")
    assert machine.choose_path() == first


@pytest.mark.parametrize(
    ("version", "kind"),
    [("3.10.13", "cpython"), ("3.15.0", "cpython"), ("2.7.18", "cpython"), ("3.13.0", "other")],
    ids=["too old", "untested", "Python 2", "no CPython"],
)
def test_unsupported_interpreters_are_left_out(machine: Machine, version: str, kind: str) -> None:
    machine.add(machine.path / "python3", version, is_optimised=True, kind=kind)
    supported = machine.add(machine.path / "python3.11", "3.11.0")
    assert machine.choose_path() == supported


def test_an_interpreter_that_does_not_run_is_left_out(machine: Machine) -> None:
    """pyenv has a shim for each version, but a shim of a version that is not activated only prints an error."""
    write_script(machine.path / "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    working = machine.add(machine.path / "python3.11", "3.11.7")
    assert machine.choose_path() == working


def test_one_interpreter_under_two_names_counts_once(machine: Machine) -> None:
    real = machine.system / "python3.11"
    machine.add(machine.path / "python3", "3.11.2", real=real)
    machine.add(real, "3.11.2")
    assert "of 1 that work" in machine.choose().stderr


def test_without_root_an_interpreter_needs_its_own_ensurepip(machine: Machine) -> None:
    """Debian ships ensurepip in a package that only root may install. There is no apt on this machine."""
    machine.add(machine.system / "python3.13", "3.13.5", is_optimised=True, can_make_venv=False)
    complete = machine.add(machine.pyenv / "versions/3.11.7/bin/python3", "3.11.7")
    assert machine.choose_path() == complete


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may install a package without a password")
def test_as_root_ensurepip_may_come_from_apt(machine: Machine) -> None:
    debian = machine.add(machine.system / "python3.13", "3.13.5", is_optimised=True, can_make_venv=False)
    machine.add(machine.pyenv / "versions/3.11.7/bin/python3", "3.11.7")
    write_script(machine.path / "apt-get", "exit 1")
    assert machine.choose_path() == debian


def test_a_path_with_blanks_is_printed_whole(machine: Machine) -> None:
    spaced = machine.add(machine.pyenv / "versions/3.13.1/my python/bin/python3", "3.13.1")
    done = machine.choose(PYTHON=str(spaced))
    assert done.stdout.strip() == str(spaced)


def test_a_named_interpreter_is_taken_without_a_choice(machine: Machine) -> None:
    machine.add(machine.path / "python3", "3.13.0", is_optimised=True)
    named = machine.add(machine.path / "python3.12", "3.12.1")
    done = machine.choose(PYTHON="python3.12")
    assert done.stdout.strip() == str(named)
    assert "because PYTHON names it" in done.stderr


def test_a_named_interpreter_may_be_newer_than_those_tested(machine: Machine) -> None:
    named = machine.add(machine.path / "python3.15", "3.15.0")
    done = machine.choose(PYTHON="python3.15")
    assert done.stdout.strip() == str(named)
    assert "newer than the tested versions" in done.stderr


@pytest.mark.parametrize("version", ["3.10.13", None], ids=["too old", "absent"])
def test_a_named_interpreter_that_cannot_be_used_is_refused(machine: Machine, version: str | None) -> None:
    machine.add(machine.path / "python3", "3.13.0")
    if version:
        machine.add(machine.path / "named", version)
    done = machine.choose(PYTHON="named")
    assert (done.returncode, done.stdout) == (1, "")
    assert "PYTHON=named" in done.stderr


def test_without_any_interpreter_the_command_to_type_is_printed(machine: Machine) -> None:
    done = machine.choose()
    assert done.returncode == 1
    assert "brew install python@3.13" in done.stderr
    write_script(machine.path / "apt-get", "exit 1")
    assert "sudo apt-get install python3-venv" in machine.choose().stderr


def test_the_probe_understands_a_real_interpreter(machine: Machine) -> None:
    done = machine.choose(PYTHON=sys.executable)
    assert (done.returncode, done.stdout.strip()) == (0, sys.executable)
    assert f"Python {sys.version.split()[0]} " in done.stderr
