"""The flake hunt: it goes on where it was cut, and tells a flaky test from one that always fails."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.dev import flake_hunt
from harness.runtime.compose import ROOT
from harness.runtime.process import wait_for

pytestmark = pytest.mark.unit

FILES = ("tests/a.py", "tests/b.py")


class Pytest:
    """Stands where pytest is run: collects two files, fails what it is told to, and dies when its power is out."""

    def __init__(self, red: dict[str, Sequence[str]] | None = None, power: int = 99) -> None:
        self.red = red or {}
        self.power = power
        self.ran: list[str] = []

    def __call__(self, arguments: Sequence[str]) -> tuple[int, str]:
        if "--collect-only" in arguments:
            return 0, "\n".join(f"{file}::test_{n}" for file in FILES for n in (1, 2))
        if self.power == len(self.ran):
            raise KeyboardInterrupt
        self.ran.append(arguments[0])
        failed = self.red.get(f"{arguments[0]} {self.ran.count(arguments[0])}", ())
        return (1 if failed else 0), "\n".join(f"FAILED {test} - AssertionError: a - b" for test in failed)


def _run(state: Path, pytest_: Pytest, revision: str = "r1", runs: int = 3) -> flake_hunt.Tally:
    return flake_hunt.run("saga", runs, state, revision, pytest_)


def test_all_green_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    tally = _run(tmp_path / "flake.json", Pytest())
    assert tally.lines()[0].startswith("saga: 3 of 3 runs green, 0 slices left")
    assert not tally.failures


def test_flaky_test_is_told_from_one_that_always_fails(tmp_path: Path) -> None:
    always = {f"tests/b.py {n}": ["tests/b.py::test_2[a b]"] for n in (1, 2, 3)}
    tally = _run(tmp_path / "flake.json", Pytest({"tests/a.py 2": ["tests/a.py::test_1"], **always}))
    assert tally.lines()[1:] == [
        "  fails: tests/b.py::test_2[a b] failed in 3 of 3 runs",
        "  flaky: tests/a.py::test_1 failed in 1 of 3 runs",
    ]
    assert "0 of 3 runs green" in tally.lines()[0]


def test_interrupted_hunt_goes_on_where_it_was_and_keeps_its_failures(tmp_path: Path) -> None:
    state = tmp_path / "flake.json"
    with pytest.raises(KeyboardInterrupt):
        _run(state, Pytest({"tests/a.py 1": ["tests/a.py::test_1"]}, power=4))
    rest = Pytest()
    tally = _run(state, rest)
    assert rest.ran == ["tests/a.py", "tests/b.py"]
    assert tally.failures == {"tests/a.py::test_1": 1}


@pytest.mark.parametrize(("revision", "runs"), [("r2", 3), ("r1", 2)])
def test_another_commit_or_number_of_runs_begins_anew(tmp_path: Path, revision: str, runs: int) -> None:
    state = tmp_path / "flake.json"
    with pytest.raises(KeyboardInterrupt):
        _run(state, Pytest(power=1))
    again = Pytest()
    _run(state, again, revision, runs)
    assert len(again.ran) == runs * len(FILES)


def test_pytest_that_breaks_down_is_a_failure_of_its_file(tmp_path: Path) -> None:
    def broken(arguments: Sequence[str]) -> tuple[int, str]:
        return Pytest()(arguments) if "--collect-only" in arguments else (3, "internal error")

    tally = flake_hunt.run("saga", 1, tmp_path / "flake.json", "r1", broken)
    assert tally.failures == {f"{file}::(pytest ended with 3)": 1 for file in FILES}


SLOW = """
import pathlib, signal, subprocess, sys
import pytest

@pytest.fixture
def server():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here.joinpath("server").write_text(str(child.pid))
    yield
    child.kill()
    here.joinpath("down").touch()

here = pathlib.Path(__file__).parent

def test_slow(server):
    signal.pause()
"""
PROGRAM = """
import sys
from harness.dev import flake_hunt
flake_hunt.ROOT = sys.argv[1]
flake_hunt.interrupt_once()
flake_hunt._pytest(['-q'])
"""


def test_whoever_interrupts_leaves_nothing_running(tmp_path: Path) -> None:
    (tmp_path / "test_slow.py").write_text(SLOW)
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE) as hunt:
        assert wait_for((tmp_path / "server").exists, 30)
        hunt.send_signal(signal.SIGINT)
    assert hunt.returncode == -signal.SIGINT
    assert (tmp_path / "down").exists(), "pytest had no time to take its server down"
