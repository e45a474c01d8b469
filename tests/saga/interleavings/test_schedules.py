"""Every schedule of each pair with at most one preemption, and with two for the pairs of the reference's matrices.

pytest tests/saga/interleavings/test_schedules.py                                         # every pair
pytest tests/saga/interleavings/test_schedules.py --schedule "pay~scan (held): a7 b"      # one schedule
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.saga.in_process.engine import Engine
from tests.saga.interleavings.controls import CONTROLS, Control
from tests.saga.interleavings.exploring import PairReport, describe, explore, explore_all, replay
from tests.saga.interleavings.pair_runner import PairRunner, open_runner
from tests.saga.interleavings.pairs import MATRIX_PAIRS, PAIRS

pytestmark = pytest.mark.saga


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test per pair, or only the test of --schedule."""
    schedule = metafunc.config.getoption("--schedule", None)
    if "pair" in metafunc.fixturenames:
        metafunc.parametrize("pair", [] if schedule else list(PAIRS))
    if "schedule" in metafunc.fixturenames:
        metafunc.parametrize("schedule", [schedule] if schedule else [])


@pytest.fixture
def runner(engine: Engine) -> Iterator[PairRunner]:
    """A runner in this process."""
    with open_runner(engine) as opened:
        yield opened


@pytest.fixture(scope="module")
def reports(request: pytest.FixtureRequest) -> dict[str, PairReport]:
    """The explorations of the selected pairs."""
    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    selected = dict.fromkeys(each["pair"] for each in params if "pair" in each)
    return explore_all([(pair, 2 if pair in MATRIX_PAIRS else 1) for pair in selected])


def test_every_schedule_of_a_pair_ends_like_a_serial_order(pair: str, reports: dict[str, PairReport]) -> None:
    if failures := reports[pair].failures:
        pytest.fail("\n\n".join(failures), pytrace=False)


def test_schedule(schedule: str, runner: PairRunner) -> None:
    run = replay(runner, schedule)
    print(run.describe(), run.outcome, run.exception, sep="\n")
    assert not run.problem, describe(schedule.partition(": ")[0], run)


@pytest.mark.negative_control
@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.guard)
def test_planted_race_is_found_by_a_schedule(control: Control, runner: PairRunner) -> None:
    """The serial orders show nothing. The explorer finds the race and shrinks it."""
    with control.plant(runner.system):
        found = explore(runner, control.pair, control.preemptions, stops=True)
    assert found.failures, "the explorer has missed the race"
    assert all(preemptions == 0 for *_, preemptions in found.runs[:2])
    assert len(found.runs) > len(found.runs[:2]), "a serial order shows the race"
    assert f'--schedule "{control.pair}: ' in found.failures[0]
    print(found.failures[0])


def test_exploration_is_deterministic(runner: PairRunner) -> None:
    first, second = (explore(runner, "pay~take-over (held)", 1) for _ in range(2))
    assert first.runs == second.runs
