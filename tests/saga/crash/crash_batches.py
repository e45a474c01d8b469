"""Runs crash points in batches: the processes of one batch die together, and one other process recovers all sagas.

Every recovery waits two seconds for a lease to expire, so the crash points of a batch wait at the same time. Each has
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
from tests.saga.crash.crash_system import CrashTestSystem, KillableOrchestrator
from tests.support.concurrency import run_concurrently
from tests.support.waiting import wait_until

KILL_SECONDS = 5.0  # from the fatal request to the exit of the process
RECOVERY_SECONDS = 5.0  # from the start of another orchestrator to the end of every saga
NOTICE_SECONDS = 15.0  # one process sends all notices, one after another
TRIES = 3
THREADS = 8
NO_BACKGROUND_WORK = "recovery,completion,outbox"  # value of IDLE, so that a process only dies of its own request


@dataclass(frozen=True)
class ArmedProcess:
    """A process that will die at a crash point, and the actors that will send the fatal request."""

    crash_point: CrashPoint
    actors: Actors
    orchestrator: KillableOrchestrator


@dataclass(frozen=True)
class CrashedProcess:
    """A process that died, and its actors. `at` is the time in seconds since the epoch."""

    crash_point: CrashPoint
    actors: Actors
    at: float


def prepare_actors(system: CrashTestSystem, crash_point: CrashPoint) -> Actors:
    """Run every step before the fatal request. If a loaded machine makes one time out, try again with new actors."""
    for _ in range(TRIES - 1):
        with suppress(AssertionError):
            return _prepare_actors(system, crash_point)
    return _prepare_actors(system, crash_point)


def _prepare_actors(system: CrashTestSystem, crash_point: CrashPoint) -> Actors:
    scenario = crash_point.scenario
    actors = Actors(system, is_flagged=scenario.is_flagged)
    scenario.prepare(actors)
    if crash_point.is_compensating and scenario.cause_refusal:
        scenario.cause_refusal(actors)
    return actors


def prepare_all(system: CrashTestSystem, crash_points: Sequence[CrashPoint]) -> list[Actors]:
    """Prepare the actors of several crash points."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(partial(prepare_actors, system), crash_points))


@contextmanager
def armed_processes(
    system: CrashTestSystem, crash_points: Sequence[CrashPoint], actors: Sequence[Actors] | None = None
) -> Iterator[list[ArmedProcess]]:
    """Start one process per crash point. Without `actors`, prepare them while the processes start."""
    environments = [{"KILL_AT": crash_point.kill_at, "IDLE": NO_BACKGROUND_WORK} for crash_point in crash_points]
    with ThreadPoolExecutor(1) as background:
        preparing = background.submit(lambda: actors or prepare_all(system, crash_points))
        with system.killable_orchestrators(*environments) as orchestrators:
            yield [ArmedProcess(*parts) for parts in zip(crash_points, preparing.result(), orchestrators, strict=True)]


def kill(armed: ArmedProcess) -> CrashedProcess:
    """Send the fatal request. Raises AssertionError if the process survives it or exits for another reason."""
    crash_point, actors = armed.crash_point, armed.actors
    for _ in range(TRIES):
        with suppress(urllib3.exceptions.ProtocolError):
            response = crash_point.scenario.request(actors, armed.orchestrator.url)
            # The rescuer may have found the verified transfer first. Only then is a response allowed.
            assert crash_point.flow == "transfer_confirm", f"{crash_point}: no process died, the response is {response}"
            actors = prepare_actors(actors.system, crash_point)
            continue
        code, at = armed.orchestrator.await_exit(KILL_SECONDS)
        assert code == -signal.SIGKILL, f"{crash_point}: the exit code of the process is {code}"
        return CrashedProcess(crash_point, actors, at)
    raise AssertionError(f"{crash_point}: no process died in {TRIES} tries")


def kill_all(armed: Sequence[ArmedProcess]) -> list[CrashedProcess]:
    """Kill all processes at the same time."""
    return run_concurrently([partial(kill, process) for process in armed])


def await_saga_end(crashed: CrashedProcess, recovery_start: float) -> Any:
    """Return the row of the crashed attempt after its end. Raises AssertionError after `RECOVERY_SECONDS`."""

    def find_ended() -> Any:
        attempts = crashed.actors.read_sagas(crashed.crash_point.flow)
        assert attempts, f"{crashed.crash_point}: the journal has no such saga"
        return attempts[0] if attempts[0]["status"] != Status.RUNNING else None

    row = wait_until(find_ended, RECOVERY_SECONDS + 1, f"{crashed.crash_point} has ended")
    took = row["ended_at"].timestamp() - max(crashed.at, recovery_start)
    assert took <= RECOVERY_SECONDS, f"{crashed.crash_point} took {took:.1f} s"
    return row


def verify(crashed: CrashedProcess, recovery_start: float = 0.0, adopters: int = 1) -> None:
    """Verify that the saga ended in time with the right state and notices, and that a retry gets the right response.

    `recovery_start` is when another orchestrator started, if that was after the crash (seconds since the epoch).
    `adopters` is how many processes may have adopted the saga. Raises AssertionError.
    """
    crash_point, actors = crashed.crash_point, crashed.actors
    row = await_saga_end(crashed, recovery_start)
    epochs = range(2, 2 + adopters) if crash_point.is_adopted else (1,)
    assert row["status"] == crash_point.expected_status, f"{crash_point}: {dict(row)}"
    assert row["epoch"] in epochs, f"{crash_point}: {dict(row)}"
    state = actors.read_state()
    assert state in crash_point.allowed_states, f"{crash_point}: {state}, expected {crash_point.allowed_states}"
    assert not (found := actors.find_violations()), f"{crash_point}: {found}"
    wait_until(
        lambda: actors.has_all_notices(row["saga_id"]), NOTICE_SECONDS, f"the notices of {crash_point} have arrived"
    )
    response = wait_until(lambda: _retry(crashed), RECOVERY_SECONDS, f"{crash_point}: a retry gets its response")
    assert (response.status, response.error_code) == crash_point.retry_response, f"{crash_point}: retry: {response}"


def _retry(crashed: CrashedProcess) -> ApiResponse | None:
    """Retry the request at the rescuer. Returns None while the key may still belong to the crashed process."""
    response = crashed.crash_point.scenario.request(crashed.actors, crashed.actors.system.rescuer)
    return None if response.error_code == "REQUEST_IN_PROGRESS" else response


Failures = dict[CrashPoint, BaseException | None]


def verify_all(crashed: Sequence[CrashedProcess], recovery_start: float = 0.0, adopters: int = 1) -> Failures:
    """Verify several crash points, and return the failure of each, or None."""
    system = crashed[0].actors.system
    with suppress(AssertionError):  # `verify` reports which saga is late
        wait_until(lambda: system.count_running_sagas() == 0, RECOVERY_SECONDS)
    with ThreadPoolExecutor(THREADS) as pool:
        results = {process.crash_point: pool.submit(verify, process, recovery_start, adopters) for process in crashed}
        return {crash_point: result.exception() for crash_point, result in results.items()}


def run_batch(system: CrashTestSystem, crash_points: Sequence[CrashPoint]) -> Failures:
    """Run one batch, and return the failure of each crash point, or None. An invariant that fails fails the batch."""
    try:
        with armed_processes(system, crash_points) as armed:
            failures = verify_all(kill_all(armed))
        if not any(failures.values()):
            invariants.assert_hold(system.connect)
    except Exception as failure:
        failures = dict.fromkeys(crash_points, failure)
    return failures
