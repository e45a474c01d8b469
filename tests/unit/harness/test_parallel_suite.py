"""The results of a suite that runs in another process are reported as if it had run with the others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.runtime.compose import ROOT
from tests.claims.parallel_suite import ALONE, is_below

pytestmark = pytest.mark.unit

SETTINGS = "[pytest]\ntestpaths = suite\naddopts = --strict-markers\nmarkers =\n    unit: parallel\n    e2e: waits\n"
WAITS = "import pytest\n@pytest.mark.e2e\ndef test_waits():\n    assert 1\n"
PARALLEL = """
import os, sys, pytest
from pathlib import Path

pytestmark = pytest.mark.unit
SECOND = any(word.startswith("--results-to") for word in sys.argv)

def test_passes():
    Path("ran").open("a").write("second " if SECOND else "first ")

def test_fails():
    assert "the one" == "the other"

@pytest.mark.skip(reason="for a reason")
def test_is_skipped():
    pass

@pytest.mark.parametrize("pid", [f"{os.getpid()}"])
def test_has_another_name(pid):
    Path("ran").open("a").write("")

def test_passes_too():
    pass
"""
DIES = """
def test_dies():
    if SECOND:
        os._exit(1)
    Path("ran").open("a").write("first ")
"""


def run_pytest(project: Path, *options: str, **suites: str) -> subprocess.CompletedProcess[str]:
    """Run pytest over a project with a suite that waits, one that can run in parallel with it, and another suite."""
    for folder, text in ({"e2e": WAITS, "unit": PARALLEL, "z": WAITS} | suites).items():
        (project / "suite" / folder).mkdir(parents=True)
        (project / "suite" / folder / f"test_{folder}.py").write_text(text)
    (project / "pytest.ini").write_text(SETTINGS)
    (project / "suite" / "conftest.py").write_text(
        'pytest_plugins = ["tests.claims.plugin", "tests.claims.parallel_suite"]\n'
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--import-mode=importlib", "-v", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_results_of_the_other_process_are_reported_at_the_end(tmp_path: Path) -> None:
    """A test whose id differs in the other process runs in the first."""
    done = run_pytest(tmp_path, "suite", "--in-parallel=unit", "-m", "e2e or unit")
    results = re.findall(r"^suite/\S+::(\w+)(?:\[\d+\])? (PASSED|FAILED|SKIPPED)", done.stdout, re.M)
    assert results == [
        ("test_waits", "PASSED"),
        ("test_waits", "PASSED"),
        ("test_passes", "PASSED"),
        ("test_fails", "FAILED"),
        ("test_is_skipped", "SKIPPED"),
        ("test_has_another_name", "PASSED"),
        ("test_passes_too", "PASSED"),
    ]
    assert (tmp_path / "ran").read_text() == "second "
    assert "AssertionError: assert 'the one' == 'the other'" in done.stdout
    assert re.fullmatch(r"=+ 1 failed, 5 passed, 1 skipped in .+ =+", done.stdout.strip().splitlines()[-1])
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


def test_tests_left_by_a_crash_run_in_the_first_process(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "suite", "--in-parallel=unit", "-m", "e2e or unit", unit=PARALLEL + DIES)
    assert (tmp_path / "ran").read_text() == "second first "
    assert "1 failed, 6 passed, 1 skipped" in done.stdout


def test_several_suites_run_in_one_other_process(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "suite", "--in-parallel=unit,z", "-m", "e2e or unit", z=PARALLEL)
    assert (tmp_path / "ran").read_text() == "second second "
    assert re.fullmatch(r"=+ 2 failed, 7 passed, 2 skipped in .+ =+", done.stdout.strip().splitlines()[-1])


MEETS = """
import time, pytest
from pathlib import Path

pytestmark = pytest.mark.unit

def test_meets_another_lane():
    Path({own!r}).touch()
    while not Path({other!r}).exists():
        time.sleep(0.01)
"""


def test_each_lane_has_its_own_process(tmp_path: Path) -> None:
    """Each of both tests waits for the other one."""
    suites = {"unit": MEETS.format(own="one", other="two"), "z": MEETS.format(own="two", other="one")}
    done = run_pytest(tmp_path, "suite", "--in-parallel=unit", "--in-parallel=z", "-m", "e2e or unit", **suites)
    assert re.fullmatch(r"=+ 3 passed in .+ =+", done.stdout.strip().splitlines()[-1]), done.stdout


COUNTS_LANES = """
import threading, pytest
from tests.claims.parallel_suite import LANE

pytestmark = pytest.mark.e2e

def test_counts():
    assert sum(thread.name.startswith(LANE) for thread in threading.enumerate()) == {number}
"""


@pytest.mark.parametrize("lanes", [["--in-parallel=unit"], ["--in-parallel=z", "--in-parallel=unit"]])
def test_lanes_start_after_the_tests_that_run_alone(tmp_path: Path, lanes: list[str]) -> None:
    suites = {"a": COUNTS_LANES.format(number=len(lanes)), "concurrency": COUNTS_LANES.format(number=0)}
    done = run_pytest(tmp_path, "suite", *lanes, "-m", "e2e or unit", **suites)
    counted = re.findall(r"^suite/(\w+)/\S+::test_counts (\w+)", done.stdout, re.M)
    assert counted == [("concurrency", "PASSED"), ("a", "PASSED")], done.stdout


def test_a_place_is_a_folder_or_a_file() -> None:
    test = "tests/e2e/browser/test_gate.py::test_scans[tests/e2e/other.py::test]"
    assert all(is_below(test, place) for place in ("e2e", "e2e/browser", "e2e/browser/test_gate.py"))
    assert not any(
        is_below(test, place) for place in ("browser", "e2e/browse", "e2e/browser/test_gate", "e2e/other.py")
    )


@pytest.mark.parametrize("place", ALONE)
def test_place_of_tests_that_need_the_machine_exists(place: str) -> None:
    assert (ROOT / "tests" / place).exists()


def test_each_process_lists_the_tests_of_the_whole_run(tmp_path: Path) -> None:
    text = """
import pytest
from tests.claims.parallel_suite import list_selected

pytestmark = pytest.mark.unit

@pytest.mark.parametrize("number", [1, 2])
def test_lists_all(request, number):
    assert list_selected(request.session) == {
        "suite/e2e/test_e2e.py::test_waits",
        "suite/unit/test_unit.py::test_lists_all",
        "suite/z/test_z.py::test_lists_all",
    }
"""
    done = run_pytest(tmp_path, "suite", "--in-parallel=unit", "-m", "e2e or unit", unit=text, z=text)
    assert re.fullmatch(r"=+ 5 passed in .+ =+", done.stdout.strip().splitlines()[-1]), done.stdout


def test_nothing_runs_in_parallel_with_only_the_suites_of_a_lane(tmp_path: Path) -> None:
    run_pytest(tmp_path, "suite", "--in-parallel=unit", "-m", "unit")
    assert (tmp_path / "ran").read_text() == "first "


COVERS = (
    PARALLEL
    + """
def test_covers():
    from services.contracts.money import is_amount
    from decimal import Decimal
    assert is_amount(Decimal(1))
"""
)


def test_coverage_of_the_other_process_is_reported(tmp_path: Path) -> None:
    options = ("--in-parallel=unit", "-m", "e2e or unit", "--report=reports")
    run_pytest(tmp_path, "suite", *options, unit=COVERS)
    covered = json.loads((tmp_path / "reports" / "coverage.json").read_text())["files"]
    assert any(path.endswith("services/contracts/money.py") for path in covered)
