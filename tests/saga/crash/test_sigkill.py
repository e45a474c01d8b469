"""A real orchestrator process is killed (SIGKILL) at every crash point of every saga, and another finishes the saga."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import urllib3

from harness import invariants
from services.orchestrator.saga.flows import SAGAS
from services.orchestrator.saga.journal import Status
from tests.saga.crash import crash_batches
from tests.saga.crash.actors import Actors
from tests.saga.crash.crash_batches import CrashedProcess
from tests.saga.crash.crash_points import CRASH_POINTS, CrashPoint
from tests.saga.crash.crash_system import ORCHESTRATOR, CrashTestSystem, KillableOrchestrator
from tests.support.concurrency import run_concurrently
from tests.support.waiting import wait_until

pytestmark = pytest.mark.saga

BATCH_SIZE = 16  # processes that run together, which sets the peak memory of `make verify`
ORPHANS = 50


class CrashBatches:
    """Runs the selected crash points in batches, each batch when its first test needs it."""

    def __init__(self, system: CrashTestSystem, crash_points: Sequence[CrashPoint]) -> None:
        self._system = system
        self._batches = _split(crash_points)
        self._failures: crash_batches.Failures = {}

    def failure_of(self, crash_point: CrashPoint) -> BaseException | None:
        if crash_point not in self._failures:
            batch = next(batch for batch in self._batches if crash_point in batch)
            self._failures |= crash_batches.run_batch(self._system, batch)
        return self._failures[crash_point]


def _split(crash_points: Sequence[CrashPoint]) -> list[Sequence[CrashPoint]]:
    return [crash_points[start : start + BATCH_SIZE] for start in range(0, len(crash_points), BATCH_SIZE)]


@pytest.fixture(scope="module")
def batches(system: CrashTestSystem, request: pytest.FixtureRequest) -> CrashBatches:
    selected = [item.callspec.params.get("crash_point") for item in request.session.items if hasattr(item, "callspec")]
    return CrashBatches(system, [crash_point for crash_point in CRASH_POINTS if crash_point in selected])


# ── one crash


@pytest.mark.claim("architecture/one-orchestrator")
@pytest.mark.parametrize("crash_point", CRASH_POINTS, ids=str)
def test_saga_of_a_killed_orchestrator_is_finished_by_another(crash_point: CrashPoint, batches: CrashBatches) -> None:
    if failure := batches.failure_of(crash_point):
        raise failure


def test_every_step_and_every_undo_has_its_crash_points() -> None:
    assert {crash_point.flow for crash_point in CRASH_POINTS} == set(SAGAS)
    for flow, saga in SAGAS.items():
        undos = sum(step.undo is not None for step in saga.steps)
        actions = sum(step.do is not None for step in saga.steps)
        assert sum(crash_point.flow == flow for crash_point in CRASH_POINTS) == 3 + 2 * actions + 2 * undos


# ── several crashes


CRASHES_OF_ADOPTERS = ("*:settled:*", "*:undoing:*", "*:answered:*")


def test_sagas_survive_crashes_during_their_recovery(system: CrashTestSystem) -> None:
    """A process dies after each step of each flow. Then three adopters die one after another during recovery."""
    crash_points = [crash_point for crash_point in CRASH_POINTS if crash_point.turn == "answered"]
    actors = dict(zip(crash_points, crash_batches.prepare_all(system, crash_points), strict=True))
    crashed: list[CrashedProcess] = []
    with system.without_rescuer():
        for batch in _split(crash_points):
            with crash_batches.armed_processes(system, batch, [actors[each] for each in batch]) as armed:
                crashed += crash_batches.kill_all(armed)
        for at in CRASHES_OF_ADOPTERS:
            environment = {"KILL_AT": at, "IDLE": "completion,outbox"}
            with system.killable_orchestrators(environment, may_die_early=True) as (adopter,):
                assert adopter.await_exit(20)[0] == -signal.SIGKILL, at
    failures = crash_batches.verify_all(crashed, time.time(), adopters=1 + len(CRASHES_OF_ADOPTERS))
    assert {crash_point: failure for crash_point, failure in failures.items() if failure} == {}
    invariants.assert_hold(system.connect)


def test_two_orchestrators_finish_fifty_orphaned_sagas_once(system: CrashTestSystem) -> None:
    expected = {
        "pay:answered:confirm_order": (Status.UNDONE, ["DEDUCT", "REFUND"]),
        "pay:answered:confirm_seat": (Status.DONE, ["DEDUCT"]),
    }
    twin = system.stack.start_replica(ORCHESTRATOR)
    rescuers = [system.rescuer, system.stack.url(twin)]
    adopted_before = _count_adoptions(system, rescuers)
    orphans = {at: _hold_seats(system, ORPHANS // 2) for at in expected}
    shared = {"KILL_COUNT": str(ORPHANS // 2), "DB_POOL_SIZE": "32", "IDLE": crash_batches.NO_BACKGROUND_WORK}
    with system.killable_orchestrators(*({"KILL_AT": at, **shared} for at in expected)) as orchestrators:
        pairs = zip(orchestrators, orphans.values(), strict=True)
        run_concurrently([partial(_pay_without_response, actors, to) for to, group in pairs for actors in group])
        assert [orchestrator.await_exit(5)[0] for orchestrator in orchestrators] == [-signal.SIGKILL] * 2
    wait_until(lambda: system.count_running_sagas() == 0)
    for at, (status, entries) in expected.items():
        for actors in orphans[at]:
            assert [(saga["status"], saga["adoptions"]) for saga in actors.read_sagas("pay")] == [(status, 1)]
            assert actors.list_credit_entries() == entries
    assert _count_adoptions(system, rescuers) - adopted_before == ORPHANS
    system.stack.stop(twin)
    invariants.assert_hold(system.connect)


def _count_adoptions(system: CrashTestSystem, urls: list[str]) -> float:
    return sum(system.metric(url, "sagas_adopted_total", flow="pay") for url in urls)


def _hold_seats(system: CrashTestSystem, number: int) -> list[Actors]:
    with ThreadPoolExecutor(crash_batches.THREADS) as pool:
        actors = list(pool.map(lambda _: Actors(system), range(number)))
        list(pool.map(Actors.hold_seat, actors))
    return actors


def _pay_without_response(actors: Actors, orchestrator: KillableOrchestrator) -> None:
    with pytest.raises(urllib3.exceptions.ProtocolError):
        actors.request_pay(orchestrator.url)
