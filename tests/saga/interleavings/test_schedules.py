"""Every schedule of each pair with at most one preemption, and with two for the pairs of the reference's matrices.

pytest tests/saga/interleavings/test_schedules.py                                         # every pair
pytest tests/saga/interleavings/test_schedules.py --schedule "pay~scan (held): a7 b"      # one schedule
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.dev.git import read_revision
from tests.saga.in_process.engine import Engine
from tests.saga.interleavings import results_file
from tests.saga.interleavings.controls import CONTROLS, Control
from tests.saga.interleavings.exploring import (
    Mode,
    Search,
    SearchReport,
    describe,
    explore,
    explore_all,
    list_verified,
    replay,
)
from tests.saga.interleavings.oracle import EXCEPTIONS, Deviation
from tests.saga.interleavings.pair_runner import PairRunner, open_runner
from tests.saga.interleavings.pairs import PAIRS

pytestmark = pytest.mark.saga

REPEATED = Search("pay~take-over (held)", Mode.ONE)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test per pair, exception and planted race, or only the test of --schedule."""
    schedule = metafunc.config.getoption("--schedule", None)
    every = {"pair": PAIRS, "exception": EXCEPTIONS, "control": CONTROLS, "search": (REPEATED,)}
    for name in every.keys() & set(metafunc.fixturenames):
        metafunc.parametrize(name, () if schedule else tuple(every[name]), ids=_id)
    if "schedule" in metafunc.fixturenames:
        metafunc.parametrize("schedule", [schedule] if schedule else [])


def _id(value: str | Deviation | Control | Search) -> str:
    if isinstance(value, Deviation):
        return f"{value.actor}-{value.other}-{value.answer}"
    return value.guard if isinstance(value, Control) else str(value)


@pytest.fixture
def runner(engine: Engine) -> Iterator[PairRunner]:
    """A runner in this process."""
    with open_runner(engine) as opened:
        yield opened


@pytest.fixture(scope="module")
def reports(request: pytest.FixtureRequest) -> dict[str, SearchReport]:
    """The explorations of the selected pairs. A full run also adds them to reports/interleavings.json."""
    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    selected = {each["pair"] for each in params if "pair" in each} or PAIRS.keys()
    found = {report.search.pair: report for report in explore_all([s for s in list_verified() if s.pair in selected])}
    if selected == PAIRS.keys():
        results_file.add(results_file.REPORT, read_revision(), found.values())
    return found


def test_every_schedule_of_a_pair_ends_like_a_serial_order(pair: str, reports: dict[str, SearchReport]) -> None:
    if failures := reports[pair].failures:
        pytest.fail("\n\n".join(failures), pytrace=False)


def test_declared_exception_occurs(exception: Deviation, reports: dict[str, SearchReport]) -> None:
    """An exception that no schedule needs any more would hide a new race, so it must be removed."""
    if reports.keys() != PAIRS.keys():
        pytest.skip("only some pairs were explored")
    assert any(run.exception == str(exception) for report in reports.values() for run in report.executed)


def test_schedule(schedule: str, runner: PairRunner) -> None:
    oracle, run = replay(runner, schedule)
    print(run.describe(), run.outcome, run.exception, sep="\n")
    assert not run.problem, describe(oracle, run)


@pytest.mark.negative_control
def test_planted_race_is_found_by_a_schedule(control: Control, runner: PairRunner) -> None:
    """The serial orders show nothing. The explorer finds the race and shrinks it."""
    with control.plant(runner.system):
        found = explore(runner, Search(control.pair, control.mode), stops=True)
    assert found.failures, "the explorer has missed the race"
    assert not found.executed[-1].is_serial, "a serial order shows the race"
    assert f'--schedule "{control.pair}: ' in found.failures[0]
    print(found.failures[0])


def test_search_executes_the_same_schedules_twice(search: Search, runner: PairRunner) -> None:
    first, second = (explore(runner, search) for _ in range(2))
    assert first.executed == second.executed
