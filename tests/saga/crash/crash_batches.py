"""Runs crash points in batches: the processes of one batch die together, and one other process recovers all sagas.

Every recovery waits two seconds for a lease to run out, so the crash points of a batch wait at the same time. Each has
its own actors and its own process. Between two batches no saga is live, and all invariants are checked.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import urllib3

from harness import invariants
from harness.api_client import ApiResponse
from services.orchestrator.saga.journal import Status
from tests.saga.crash.actors import Actors
from tests.saga.crash.crash_points import CrashPoint
from tests.saga.crash.crash_system import CrashTestSystem, KillableOrchestrator, until

KILL_SECONDS = 5.0  # from a fatal request to the process being gone
RESCUE_SECONDS = 5.0  # from another orchestrator being ready to the end of every saga
NOTICE_SECONDS = 15.0  # no promise but that they come; one process sends them one by one
TRIES = 3
AT_ONCE = 8  # actors that are set, and judged, at a time
VICTIM = "recovery,completion,outbox"  # what a victim leaves to the rescuer: it dies of its own requests alone


@dataclass(frozen=True)
class CrashedProcess:
    """A process that died, with what it left behind. `at` is in seconds since the epoch."""

    crash_point: CrashPoint
    actors: Actors
    at: float


@dataclass(frozen=True)
class ArmedProcess:
    """A process, armed, and a actors whose next request will end it."""

    crash_point: CrashPoint
    actors: Actors
    orchestrator: KillableOrchestrator


def prepare(system: CrashTestSystem, crash_point: CrashPoint) -> Actors:
    """Run every step before the fatal request. If a loaded machine makes one time out, try again with new actors."""
    for _ in range(TRIES - 1):
        with suppress(AssertionError):
            return _prepared(system, crash_point)
    return _prepared(system, crash_point)


def _prepared(system: CrashTestSystem, crash_point: CrashPoint) -> Actors:
    actors = Actors(system, flagged=crash_point.plot.flagged)
    crash_point.plot.before(actors)
    if crash_point.back and crash_point.plot.trouble:
        crash_point.plot.trouble(actors)
    return actors


def cast_all(system: CrashTestSystem, crash_points: Sequence[CrashPoint]) -> list[Actors]:
    """For each crash_point a actors, ready for the fatal request."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(partial(prepare, system), crash_points))


@contextmanager
def armed_processes(
    system: CrashTestSystem, crash_points: Sequence[CrashPoint], actors: Sequence[Actors] | None = None
) -> Iterator[list[ArmedProcess]]:
    """Start one process per crash point. Without `actors`, create them while the processes start."""
    with ThreadPoolExecutor(1) as aside:
        made = aside.submit(lambda: actors or cast_all(system, crash_points))
        with system.killable_orchestrators(
            *({"KILL_AT": crash_point.kill_at, "IDLE": VICTIM} for crash_point in crash_points)
        ) as killable_orchestrators:
            yield [
                ArmedProcess(*each) for each in zip(crash_points, made.result(), killable_orchestrators, strict=True)
            ]


def kill(armed: ArmedProcess) -> CrashedProcess:
    """Send the fatal request. Raises AssertionError when the process outlives it, or dies of anything else."""
    crash_point, actors = armed.crash_point, armed.actors
    for _ in range(TRIES):
        with suppress(urllib3.exceptions.ProtocolError):
            answer = crash_point.plot.ask(actors, armed.orchestrator.url)
            # The rescuer's own search for verified transfers may have been faster: then another actors has to play.
            assert crash_point.flow == "transfer_confirm", f"{crash_point}: nobody died, the client was told {answer}"
            actors = prepare(actors.system, crash_point)
            continue
        code, at = armed.orchestrator.await_end(KILL_SECONDS)
        assert code == -signal.SIGKILL, f"{crash_point}: the process ended with {code}"
        return CrashedProcess(crash_point, actors, at)
    raise AssertionError(f"{crash_point}: nobody died in {TRIES} tries")


def kill_all(armed: Sequence[ArmedProcess]) -> list[CrashedProcess]:
    """All die at the same time."""
    with ThreadPoolExecutor(len(armed)) as pool:
        return list(pool.map(kill, armed))


def ended(dead: CrashedProcess, ready_at: float) -> Any:
    """The row of the attempt that died, once it has ended. Raises AssertionError after `RESCUE_SECONDS`."""

    def terminal() -> Any:
        attempts = dead.actors.sagas(dead.crash_point.flow)
        assert attempts, f"{dead.crash_point}: the journal knows of no such saga"
        return attempts[0] if attempts[0]["status"] != Status.RUNNING else None

    row = until(f"{dead.crash_point} has ended", terminal, RESCUE_SECONDS + 1)
    took = row["ended_at"].timestamp() - max(dead.at, ready_at)
    assert took <= RESCUE_SECONDS, f"{dead.crash_point} took {took:.1f} s"
    return row


def judge(dead: CrashedProcess, ready_at: float = 0.0, adopters: int = 1) -> None:
    """The saga has ended in time, as it had to, with all that is due, and a client that asks again is told so.

    `ready_at` is when another orchestrator was there to adopt it, if that was after the crash_point (seconds since the
    epoch). Raises AssertionError.
    """
    crash_point, actors = dead.crash_point, dead.actors
    row = ended(dead, ready_at)
    epochs = range(2, 2 + adopters) if crash_point.is_adopted else (1,)
    assert row["status"] == crash_point.outcome, f"{crash_point}: {dict(row)}"
    assert row["epoch"] in epochs, f"{crash_point}: {dict(row)}"
    state = actors.state()
    assert state in crash_point.standings, f"{crash_point}: {state}, expected {crash_point.standings}"
    assert not (found := actors.violations()), f"{crash_point}: {found}"
    until(f"the notices of {crash_point} have arrived", lambda: actors.are_told(row["saga_id"]), NOTICE_SECONDS)
    answer = until(f"{crash_point}: the client is answered", lambda: _again(dead), RESCUE_SECONDS)
    assert (answer.status, answer.error_code) == crash_point.again, f"{crash_point}: asked again: {answer}"


def _again(dead: CrashedProcess) -> ApiResponse | None:
    """What the client is told; None while it is told to wait, for its key's first owner may still be alive."""
    answer = dead.crash_point.plot.ask(dead.actors, dead.actors.system.rescuer)
    return None if answer.error_code == "REQUEST_IN_PROGRESS" else answer


Verdicts = dict[CrashPoint, BaseException | None]


def judge_all(dead: Sequence[CrashedProcess], ready_at: float = 0.0, adopters: int = 1) -> Verdicts:
    """For each crash_point what was wrong, or None."""
    system = dead[0].actors.system
    with suppress(AssertionError):  # one looks for all; which of them is late, each one's own judge will say
        until("all have ended", lambda: system.running_sagas() == 0, RESCUE_SECONDS)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        judged = {one.crash_point: pool.submit(judge, one, ready_at, adopters) for one in dead}
        return {crash_point: verdict.exception() for crash_point, verdict in judged.items()}


def run(system: CrashTestSystem, crash_points: Sequence[CrashPoint]) -> Verdicts:
    """One wave; for each crash_point what was wrong, or None. What nobody's own rows explain is held against all."""
    try:
        with armed_processes(system, crash_points) as armed:
            verdicts = judge_all(kill_all(armed))
        if not any(verdicts.values()):
            invariants.assert_hold(system.connect)
    except Exception as broken:
        verdicts = dict.fromkeys(crash_points, broken)
    return verdicts
