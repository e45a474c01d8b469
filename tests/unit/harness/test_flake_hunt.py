"""The hunt for flaky tests resumes after an interrupt and separates flaky tests from failing ones."""

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


class FakePytest:
    """Replaces pytest: collects two files, fails the tests in `failures`, and is interrupted after `max_runs` files."""

    def __init__(self, failures: dict[str, Sequence[str]] | None = None, max_runs: int = 99) -> None:
        self.failures = failures or {}
        self.max_runs = max_runs
        self.ran: list[str] = []

    def __call__(self, arguments: Sequence[str]) -> tuple[int, str]:
        if "--collect-only" in arguments:
            return 0, "\n".join(f"{file}::test_{n}" for file in FILES for n in (1, 2))
        if self.max_runs == len(self.ran):
            raise KeyboardInterrupt
        self.ran.append(arguments[0])
        failed = self.failures.get(f"{arguments[0]} {self.ran.count(arguments[0])}", ())
        return (1 if failed else 0), "\n".join(f"FAILED {test} - AssertionError: a - b" for test in failed)


def _run(state: Path, pytest_: FakePytest, revision: str = "r1", runs: int = 3) -> flake_hunt.HuntResults:
    return flake_hunt.run("saga", runs, state, revision, pytest_)


def test_hunt_without_failures_is_green_and_complete(tmp_path: Path) -> None:
    results = _run(tmp_path / "flake.json", FakePytest())
    assert results.summarize()[0].startswith("saga: 3 of 3 runs green, 0 slices left")
    assert not results.failures


def test_flaky_and_failing_tests_are_reported_separately(tmp_path: Path) -> None:
    always = {f"tests/b.py {n}": ["tests/b.py::test_2[a b]"] for n in (1, 2, 3)}
    results = _run(tmp_path / "flake.json", FakePytest({"tests/a.py 2": ["tests/a.py::test_1"], **always}))
    assert results.summarize()[1:] == [
        "  fails: tests/b.py::test_2[a b] failed in 3 of 3 runs",
        "  flaky: tests/a.py::test_1 failed in 1 of 3 runs",
    ]
    assert "0 of 3 runs green" in results.summarize()[0]


def test_interrupted_hunt_resumes_and_keeps_its_failures(tmp_path: Path) -> None:
    state = tmp_path / "flake.json"
    with pytest.raises(KeyboardInterrupt):
        _run(state, FakePytest({"tests/a.py 1": ["tests/a.py::test_1"]}, max_runs=4))
    rest = FakePytest()
    results = _run(state, rest)
    assert rest.ran == ["tests/a.py", "tests/b.py"]
    assert results.failures == {"tests/a.py::test_1": 1}


@pytest.mark.parametrize(("revision", "runs"), [("r2", 3), ("r1", 2)])
def test_another_commit_or_number_of_runs_starts_again(tmp_path: Path, revision: str, runs: int) -> None:
    state = tmp_path / "flake.json"
    with pytest.raises(KeyboardInterrupt):
        _run(state, FakePytest(max_runs=1))
    again = FakePytest()
    _run(state, again, revision, runs)
    assert len(again.ran) == runs * len(FILES)


def test_crash_of_pytest_counts_as_a_failure_of_its_file(tmp_path: Path) -> None:
    def crash(arguments: Sequence[str]) -> tuple[int, str]:
        return FakePytest()(arguments) if "--collect-only" in arguments else (3, "internal error")

    results = flake_hunt.run("saga", 1, tmp_path / "flake.json", "r1", crash)
    assert results.failures == {f"{file}::(pytest ended with 3)": 1 for file in FILES}


SLOW = """
import pathlib, subprocess, sys, time
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
    while True:  # signal.pause() would miss a signal that arrives just before it
        time.sleep(0.1)
"""
PROGRAM = """
import sys
from harness.dev import flake_hunt
flake_hunt.ROOT = sys.argv[1]
flake_hunt.interrupt_once()
flake_hunt._run_pytest(['-q'])
"""


def test_interrupt_leaves_no_process_running(tmp_path: Path) -> None:
    (tmp_path / "test_slow.py").write_text(SLOW)
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE) as hunt:
        assert wait_for((tmp_path / "server").exists, 30)
        hunt.send_signal(signal.SIGINT)
    assert hunt.returncode == -signal.SIGINT
    assert (tmp_path / "down").exists(), "pytest had no time to take its server down"
