"""Runs workflows whose steps do nothing, to measure what their journal costs.

    python -m harness.bench.workflows saga|dbos DSN STEPS SECONDS ROUNDS

`saga` writes the begin and the end of a saga with the orchestrator's own journal. `dbos` runs a workflow of DBOS, which
records each step. Eight threads run them for SECONDS in each round. The process prints the workflows per second of each
round as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import uuid4

from psycopg2.extensions import parse_dsn

from services.chassis.db import Database
from services.chassis.settings import Address, DatabaseSettings
from services.orchestrator.saga.journal import Journal, Status

THREADS = 8
DEADLINE_SECONDS, PARK_SECONDS, BEAT_SECONDS = 30.0, 60.0, 0.5

Workflow = Callable[[int], object]
"""Runs one workflow of so many steps."""


def do_nothing() -> None:
    """Be a step."""


@contextmanager
def open_saga_journal(dsn: str) -> Iterator[tuple[Workflow, Callable[[], object]]]:
    """Yield a saga that only writes to the journal in `dsn`, and the renewal of its lease."""
    at = parse_dsn(dsn)
    settings = DatabaseSettings(
        (Address(at["host"], int(at["port"])),), at["dbname"], at["user"], at["password"], THREADS
    )
    journal = Journal(Database(settings), deadline_seconds=DEADLINE_SECONDS, park_seconds=PARK_SECONDS)

    def run_saga(steps: int) -> None:
        entry, _ = journal.begin("bench", uuid4(), {}, caller=None, dispute_number=0, one_attempt=False)
        for _ in range(steps):
            do_nothing()
        journal.end(entry, Status.DONE, {})

    journal.beat()  # otherwise a running orchestrator would adopt the sagas
    yield run_saga, journal.beat


@contextmanager
def open_dbos(dsn: str) -> Iterator[tuple[Workflow, Callable[[], object]]]:
    """Yield a workflow of DBOS, whose tables it creates in `dsn`. It needs no renewal."""
    from dbos import DBOS, DBOSConfig  # loaded only here, because it is optional

    DBOS(config=DBOSConfig(name="bench", system_database_url=dsn, log_level="ERROR"))
    step = DBOS.step()(do_nothing)

    @DBOS.workflow()
    def run_workflow(steps: int) -> None:
        for _ in range(steps):
            step()

    DBOS.launch()
    try:
        yield run_workflow, do_nothing
    finally:
        DBOS.destroy()


def measure_rate(workflow: Workflow, steps: int, seconds: float, renew: Callable[[], object]) -> float:
    """Return the workflows per second of all threads."""
    start = time.monotonic()

    def run_until_deadline() -> int:
        done = 0
        while time.monotonic() < start + seconds:
            workflow(steps)
            done += 1
        return done

    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(run_until_deadline) for _ in range(THREADS)]
        while (left := start + seconds - time.monotonic()) > 0:
            renew()
            time.sleep(min(BEAT_SECONDS, left))
        done = sum(future.result() for future in futures)
    return done / (time.monotonic() - start)


def main(arguments: list[str]) -> None:
    """Run one engine and print its rates."""
    engine, dsn, steps, seconds, rounds = arguments
    with {"saga": open_saga_journal, "dbos": open_dbos}[engine](dsn) as (workflow, renew):
        workflow(int(steps))  # the first call is slow
        print(json.dumps([measure_rate(workflow, int(steps), float(seconds), renew) for _ in range(int(rounds))]))


if __name__ == "__main__":
    main(sys.argv[1:])
