"""Deaths in waves: a wave's processes die together, one other process finishes the work of all, then it is judged.

Waiting for a lease takes two seconds whoever died, so many wait at once; each has a cast and a process of its own.
Between two waves everything is at rest, and the invariants are asked about all databases together.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import urllib3

from harness import invariants
from services.orchestrator.journal import Status
from tests.saga.casts import Cast
from tests.saga.deaths import Death
from tests.saga.system import Mortal, System, until

RESCUE_SECONDS = 5.0  # from another orchestrator being ready to the end of every saga
NOTICE_SECONDS = 5.0
TRIES = 3
SETTING = 8  # casts that are set at a time
VICTIM = "recovery,completion,outbox"  # what a victim leaves to the rescuer: it dies of its own requests alone


@dataclass(frozen=True)
class Dead:
    """A process that died, with what it left behind. `at` is in seconds since the epoch."""

    death: Death
    cast: Cast
    at: float


def prepare(system: System, death: Death) -> Cast:
    """Everything up to the request that will be fatal."""
    cast = Cast(system, flagged=death.plot.flagged)
    death.plot.before(cast)
    if death.back and death.plot.trouble:
        death.plot.trouble(cast)
    return cast


def kill(death: Death, cast: Cast, mortal: Mortal) -> Dead:
    """Send the fatal request. Raises AssertionError when the process outlives it, or dies of anything else."""
    for _ in range(TRIES):
        with suppress(urllib3.exceptions.ProtocolError):
            answer = death.plot.ask(cast, mortal.url)
            # The rescuer's own search for verified transfers may have been faster: then another cast has to play.
            assert death.flow == "swap", f"{death}: nobody died, the client was told {answer}"
            cast = prepare(cast.system, death)
            continue
        code, at = mortal.await_end(5)
        assert code == -signal.SIGKILL, f"{death}: the process ended with {code}"
        return Dead(death, cast, at)
    raise AssertionError(f"{death}: nobody died in {TRIES} tries")


def ended(dead: Dead, ready_at: float) -> Any:
    """The saga's row, once it has ended. Raises AssertionError when that takes more than `RESCUE_SECONDS`."""

    def terminal() -> Any:
        rows = dead.cast.sagas(dead.death.flow)
        return rows[-1] if rows and rows[-1]["status"] != Status.RUNNING else None

    row = until(f"{dead.death} has ended", terminal, RESCUE_SECONDS + 1)
    took = row["ended_at"].timestamp() - max(dead.at, ready_at)
    assert took <= RESCUE_SECONDS, f"{dead.death} took {took:.1f} s"
    return row


def judge(dead: Dead, ready_at: float = 0.0) -> None:
    """The saga has ended in time, as it had to, once, with all that is due, and a client that asks again is told so."""
    death, cast = dead.death, dead.cast
    row = ended(dead, ready_at)
    assert (row["status"], row["epoch"]) == (death.outcome, 1 + death.is_adopted), f"{death}: {dict(row)}"
    standing = cast.standing()
    assert standing in death.standings, f"{death}: {standing}, expected {death.standings}"
    assert cast.violations() == [], str(death)
    until(f"the notices of {death} are sent", lambda: _are_sent(cast, row), NOTICE_SECONDS)
    answer = death.plot.ask(cast, cast.system.rescuer)
    assert (answer.status, answer.error_code) == death.again, f"{death}: asked again: {answer}"


def _are_sent(cast: Cast, saga: Any) -> bool:
    sql = "SELECT notice_id FROM outbox WHERE saga_id = %(saga)s AND sent_at IS NULL"
    return not cast.system.run("sagas_db", sql, saga=saga["saga_id"])


Verdicts = dict[Death, BaseException | None]


def run(system: System, deaths: Sequence[Death]) -> Verdicts:
    """One wave; for each death what was wrong, or None."""
    laid = [{"KILL_AT": death.kill_at, "IDLE": VICTIM} for death in deaths]
    with ThreadPoolExecutor(SETTING) as setting, ThreadPoolExecutor(len(deaths)) as dying:
        casts = [setting.submit(prepare, system, death) for death in deaths]
        with system.mortals(*laid) as mortals:
            ready = [cast.result() for cast in casts]
            dead = [dying.submit(kill, *each) for each in zip(deaths, ready, mortals, strict=True)]
            judged = [dying.submit(lambda one=one: judge(one.result())) for one in dead]
            verdicts: Verdicts = {
                death: verdict.exception() for death, verdict in zip(deaths, judged, strict=True)
            }
    try:
        invariants.assert_hold(system.connect)
    except AssertionError as broken:
        return {death: verdict or broken for death, verdict in verdicts.items()}
    return verdicts
