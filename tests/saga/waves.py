"""Deaths in waves: a wave's processes die together, one other process finishes the work of all, then it is judged.

Waiting for a lease takes two seconds whoever died, so many wait at once; each has a cast and a process of its own.
Between two waves everything is at rest, and the invariants are asked about all databases together.
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
from harness.api_client import Answer
from services.orchestrator.saga.journal import Status
from tests.saga.casts import Cast
from tests.saga.deaths import Death
from tests.saga.system import Mortal, System, until

KILL_SECONDS = 5.0  # from a fatal request to the process being gone
RESCUE_SECONDS = 5.0  # from another orchestrator being ready to the end of every saga
NOTICE_SECONDS = 15.0  # no promise but that they come; one process sends them one by one
TRIES = 3
AT_ONCE = 8  # casts that are set, and judged, at a time
VICTIM = "recovery,completion,outbox"  # what a victim leaves to the rescuer: it dies of its own requests alone


@dataclass(frozen=True)
class Dead:
    """A process that died, with what it left behind. `at` is in seconds since the epoch."""

    death: Death
    cast: Cast
    at: float


@dataclass(frozen=True)
class Doomed:
    """A process, armed, and a cast whose next request will end it."""

    death: Death
    cast: Cast
    mortal: Mortal


def prepare(system: System, death: Death) -> Cast:
    """Everything up to the request that will be fatal. A cast that a loaded machine put off is replaced by another."""
    for _ in range(TRIES - 1):
        with suppress(AssertionError):
            return _prepared(system, death)
    return _prepared(system, death)


def _prepared(system: System, death: Death) -> Cast:
    cast = Cast(system, flagged=death.plot.flagged)
    death.plot.before(cast)
    if death.back and death.plot.trouble:
        death.plot.trouble(cast)
    return cast


def cast_all(system: System, deaths: Sequence[Death]) -> list[Cast]:
    """For each death a cast, ready for the fatal request."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(partial(prepare, system), deaths))


@contextmanager
def doomed(system: System, deaths: Sequence[Death], casts: Sequence[Cast] | None = None) -> Iterator[list[Doomed]]:
    """For each death a process and a cast, ready to go; without `casts`, they are made while the processes start."""
    with ThreadPoolExecutor(1) as aside:
        made = aside.submit(lambda: casts or cast_all(system, deaths))
        with system.mortals(*({"KILL_AT": death.kill_at, "IDLE": VICTIM} for death in deaths)) as mortals:
            yield [Doomed(*each) for each in zip(deaths, made.result(), mortals, strict=True)]


def kill(doomed: Doomed) -> Dead:
    """Send the fatal request. Raises AssertionError when the process outlives it, or dies of anything else."""
    death, cast = doomed.death, doomed.cast
    for _ in range(TRIES):
        with suppress(urllib3.exceptions.ProtocolError):
            answer = death.plot.ask(cast, doomed.mortal.url)
            # The rescuer's own search for verified transfers may have been faster: then another cast has to play.
            assert death.flow == "swap", f"{death}: nobody died, the client was told {answer}"
            cast = prepare(cast.system, death)
            continue
        code, at = doomed.mortal.await_end(KILL_SECONDS)
        assert code == -signal.SIGKILL, f"{death}: the process ended with {code}"
        return Dead(death, cast, at)
    raise AssertionError(f"{death}: nobody died in {TRIES} tries")


def kill_all(stage: Sequence[Doomed]) -> list[Dead]:
    """All die at the same time."""
    with ThreadPoolExecutor(len(stage)) as pool:
        return list(pool.map(kill, stage))


def ended(dead: Dead, ready_at: float) -> Any:
    """The row of the attempt that died, once it has ended. Raises AssertionError after `RESCUE_SECONDS`."""

    def terminal() -> Any:
        attempts = dead.cast.sagas(dead.death.flow)
        assert attempts, f"{dead.death}: the journal knows of no such saga"
        return attempts[0] if attempts[0]["status"] != Status.RUNNING else None

    row = until(f"{dead.death} has ended", terminal, RESCUE_SECONDS + 1)
    took = row["ended_at"].timestamp() - max(dead.at, ready_at)
    assert took <= RESCUE_SECONDS, f"{dead.death} took {took:.1f} s"
    return row


def judge(dead: Dead, ready_at: float = 0.0, adopters: int = 1) -> None:
    """The saga has ended in time, as it had to, with all that is due, and a client that asks again is told so.

    `ready_at` is when another orchestrator was there to adopt it, if that was after the death (seconds since the
    epoch). Raises AssertionError.
    """
    death, cast = dead.death, dead.cast
    row = ended(dead, ready_at)
    epochs = range(2, 2 + adopters) if death.is_adopted else (1,)
    assert row["status"] == death.outcome, f"{death}: {dict(row)}"
    assert row["epoch"] in epochs, f"{death}: {dict(row)}"
    standing = cast.standing()
    assert standing in death.standings, f"{death}: {standing}, expected {death.standings}"
    assert not (found := cast.violations()), f"{death}: {found}"
    until(f"the notices of {death} have arrived", lambda: cast.are_told(row["saga_id"]), NOTICE_SECONDS)
    answer = until(f"{death}: the client is answered", lambda: _again(dead), RESCUE_SECONDS)
    assert (answer.status, answer.error_code) == death.again, f"{death}: asked again: {answer}"


def _again(dead: Dead) -> Answer | None:
    """What the client is told; None while it is told to wait, for its key's first owner may still be alive."""
    answer = dead.death.plot.ask(dead.cast, dead.cast.system.rescuer)
    return None if answer.error_code == "REQUEST_IN_PROGRESS" else answer


Verdicts = dict[Death, BaseException | None]


def judge_all(dead: Sequence[Dead], ready_at: float = 0.0, adopters: int = 1) -> Verdicts:
    """For each death what was wrong, or None."""
    system = dead[0].cast.system
    with suppress(AssertionError):  # one looks for all; which of them is late, each one's own judge will say
        until("all have ended", lambda: system.running_sagas() == 0, RESCUE_SECONDS)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        judged = {one.death: pool.submit(judge, one, ready_at, adopters) for one in dead}
        return {death: verdict.exception() for death, verdict in judged.items()}


def run(system: System, deaths: Sequence[Death]) -> Verdicts:
    """One wave; for each death what was wrong, or None. What nobody's own rows explain is held against all."""
    try:
        with doomed(system, deaths) as stage:
            verdicts = judge_all(kill_all(stage))
        if not any(verdicts.values()):
            invariants.assert_hold(system.connect)
    except Exception as broken:
        verdicts = dict.fromkeys(deaths, broken)
    return verdicts
