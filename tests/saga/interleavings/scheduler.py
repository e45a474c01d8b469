"""The controlled scheduler: exactly one actor runs at a time, and every SQL statement, SMS and message is a point.

An actor is a thread that runs a request or a background worker. It stops at a point *before* each access to shared
state, and the scheduler picks the actor that continues. Between two points an actor only computes, so "after the answer
of one call" and "before the next access" are the same point. Pauses of retries and joins are points that take no time.
An actor that waits for a row lock is not enabled. PostgreSQL reports the wait, so no deadline is guessed.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from services.chassis import db
from services.orchestrator import reserve_coalescing
from services.orchestrator.saga import retry, runner
from tests.saga.in_process import local_calls
from tests.saga.in_process.faults import ProcessDeath

Footprint = frozenset[tuple[str, str, bool]]  # (table, row or empty for any row, whether it is written or locked)

LONGEST_STEP = 30.0  # seconds, after which a step counts as a defect of the scheduler
FIRST_LOOK = 0.004  # seconds until the first question whether a running statement waits for a lock
PAUSE_SECONDS = 0.5  # by which a pause moves the clock of its actor
_TABLES = re.compile(r"\b(FROM|JOIN|UPDATE|INTO|TABLE)\s+(?!SKIP|NOWAIT|OF\b)([a-z_]+)")
_ID = re.compile(r"[0-9A-Fa-f-]{12,}")  # ids differ between executions
_LOCKS = re.compile(r"\bFOR (UPDATE|SHARE)\b")
_IS_BLOCKED = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
_HEAD = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM|LOCK TABLE|SELECT .*? FROM) ([a-z_]+)", re.DOTALL)


@dataclass(frozen=True)
class Step:
    """One step of an execution: an actor left a point. `others` could have continued instead."""

    actor: str
    label: str
    footprint: Footprint
    commits: bool  # its writes are visible to the other actors after it
    others: tuple[str, ...]
    is_forced: bool  # the actor of the previous step could not continue

    def conflicts(self, other: Step) -> bool:
        """Whether the order of both steps can matter: they touch one row, and at least one writes or locks it."""
        return _conflict(self.footprint, other.footprint)


@cache
def _conflict(one: Footprint, other: Footprint) -> bool:
    return any(
        table == name and (writes or changes) and (row == place or not row or not place)
        for table, row, writes in one
        for name, place, changes in other
    )


@dataclass
class Actor:
    """A thread under control. Its state is `new`, `parked`, `pausing`, `running`, `blocked` or `done`."""

    name: str
    work: Callable[[], Any]
    scheduler: Scheduler
    state: str = "new"
    label: str = "begin"
    footprint: Footprint = frozenset()
    commits: bool = False
    backend: int | None = None  # the process id of PostgreSQL that runs the statement of this actor
    clock: float = 0.0
    result: Any = None
    go: SimpleQueue[None] = field(default_factory=SimpleQueue)  # this queue is faster than a semaphore

    def stop_at(self, label: str, footprint: Footprint, state: str = "parked", *, commits: bool = False) -> None:
        """Stop before a step until the scheduler continues this actor."""
        if self.scheduler.has_ended:
            raise ProcessDeath
        self.label, self.footprint, self.commits = label, footprint, commits
        self.scheduler.reports.put((self, state))
        self.go.get()

    def pause(self) -> None:
        """Let the other actors continue first, and move the clock of this actor."""
        self.stop_at("pause", frozenset(), "pausing")
        self.clock += PAUSE_SECONDS

    def run(self) -> None:
        """Do the work in this thread."""
        _local.actor = self
        self.go.get()
        try:
            self.result = self.work()
        except ProcessDeath:
            self.result = None
        except BaseException as error:  # the controlling thread reports it
            self.result = error
        finally:
            _local.actor = None
            self.scheduler.reports.put((self, "done"))


_local = threading.local()


def current_actor() -> Actor | None:
    """The actor of this thread, or None outside an execution."""
    return getattr(_local, "actor", None)


class Scheduler:
    """Runs actors under one schedule: a prefix of actor names, then the default of no further preemption."""

    def __init__(self, superuser: Any, after_step: Callable[[Step], None]) -> None:
        self._cursor = superuser.cursor()
        self._after_step = after_step
        self.reports: SimpleQueue[tuple[Actor, str]] = SimpleQueue()  # the new states of actors
        self.actors: dict[str, Actor] = {}
        self.steps: list[Step] = []
        self.has_ended = False
        self.has_diverged = False

    def run(self, works: dict[str, Callable[[], Any]], prefix: Sequence[str]) -> dict[str, Any]:
        """Run each work as an actor and return the results by name."""
        _Clock.start = time.monotonic()
        self.actors = {name: Actor(name, work, self, "parked") for name, work in works.items()}
        threads = [threading.Thread(target=actor.run, daemon=True) for actor in self.actors.values()]
        for thread in threads:
            thread.start()
        try:
            current: Actor | None = None
            while any(actor.state != "done" for actor in self.actors.values()):
                current = self._take_step(current, prefix[len(self.steps)] if len(self.steps) < len(prefix) else None)
        finally:
            self.has_ended = True
            for actor in self.actors.values():
                actor.go.put(None)
        for thread in threads:
            thread.join(LONGEST_STEP)
        return {name: actor.result for name, actor in self.actors.items()}

    def _take_step(self, current: Actor | None, wanted: str | None) -> Actor | None:
        enabled = self._find_enabled(current)
        if not enabled:  # the last actor ended while it waited for a lock
            return current
        can_go_on = current is not None and current in enabled
        chosen = current if can_go_on and current else enabled[0]
        if wanted is not None:
            self.has_diverged |= self.actors[wanted] not in enabled
            chosen = self.actors[wanted] if self.actors[wanted] in enabled else chosen
        others = tuple(actor.name for actor in enabled if actor is not chosen)
        step = Step(chosen.name, chosen.label, chosen.footprint, chosen.commits, others, not can_go_on)
        self.steps.append(step)
        for actor in self.actors.values():  # the others have waited for this step
            if actor is not chosen and actor.state == "pausing":
                actor.state = "parked"
        chosen.state = "running"
        chosen.go.put(None)
        for actor in (chosen, *self.actors.values()):  # the step may end the wait of another actor for a lock
            self._await_stop(actor)
        self._after_step(step)
        return chosen

    def _find_enabled(self, current: Actor | None) -> list[Actor]:
        deadline = time.monotonic() + LONGEST_STEP
        while any(actor.state != "done" for actor in self.actors.values()):
            for state in ("parked", "pausing"):
                if enabled := [actor for actor in self.actors.values() if actor.state == state]:
                    return sorted(enabled, key=lambda actor: actor is current) if state == "pausing" else enabled
            for actor in self.actors.values():  # all wait for locks: PostgreSQL ends a deadlock after a second
                self._await_stop(actor)
            if time.monotonic() > deadline:
                raise TimeoutError(f"no actor can continue: {self.describe()}")
        return []

    def _await_stop(self, actor: Actor) -> None:
        """Wait until an actor that runs has stopped, has ended, or waits for a lock."""
        deadline, pause = time.monotonic() + LONGEST_STEP, 0.0 if actor.state == "blocked" else FIRST_LOOK
        while actor.state in ("running", "blocked"):
            try:
                reporter, state = self.reports.get(timeout=pause)
                reporter.state = state
            except Empty:
                if self._is_blocked(actor):
                    return
            pause = FIRST_LOOK
            if time.monotonic() > deadline:
                raise TimeoutError(f"{actor.name} does not stop: {self.describe()}")

    def _is_blocked(self, actor: Actor) -> bool:
        if actor.backend is None:
            return False
        self._cursor.execute(_IS_BLOCKED, (actor.backend,))
        is_blocked = bool(self._cursor.fetchone()[0])
        actor.state = "blocked" if is_blocked else actor.state
        return is_blocked

    def describe(self) -> str:
        """The state of each actor."""
        return ", ".join(f"{actor.name} {actor.state} at {actor.label}" for actor in self.actors.values())


# ── the points


@cache
def _parse(sql: str) -> tuple[str, frozenset[tuple[str, bool]]]:
    """The label of a statement, and its tables, each with whether it is written or locked."""
    locks, deletes, head = bool(_LOCKS.search(sql)), "DELETE FROM" in sql, _HEAD.search(sql)
    tables = ((table, locks or deletes or verb in ("UPDATE", "INTO", "TABLE")) for verb, table in _TABLES.findall(sql))
    return " ".join((head[0] if head else sql).split())[:60], frozenset(tables)


def _read_footprint(database: str, sql: str, params: Any) -> Footprint:
    """The tables of a statement. Only the row of an effect is known, because it has one key."""
    row = _ID.sub("#", params["key"]) if "key" in (params or {}) else ""
    return frozenset((f"{database}.{table}", row * (table == "effects"), writes) for table, writes in _parse(sql)[1])


def _execute_at_point(connection: Any, sql: str, params: Any = None) -> Any:
    actor = current_actor()
    if actor is None or sql.startswith("PREPARE"):
        return _execute(connection, sql, params)
    database, text = connection.info.dbname, sql
    if sql.startswith("EXECUTE"):
        text = next(text for text, execute in connection._prepared.items() if execute == sql)
    commits = text == "COMMIT"
    if text in ("COMMIT", "ROLLBACK"):
        footprint = frozenset(item for item in connection.__dict__.pop("touched", ()) if item[2])
    else:
        footprint = _read_footprint(database, text, params)
        if connection.get_transaction_status() or text.startswith("BEGIN"):
            connection.touched = connection.__dict__.get("touched", frozenset()) | footprint
        else:
            commits = True
    actor.stop_at(f"{database.removesuffix('_db')} {_parse(text)[0]}", footprint, commits=commits)
    if "is_patient" not in connection.__dict__:  # a parked actor may hold a lock for longer than in production
        _execute(connection, "SET lock_timeout = '20s'; SET statement_timeout = '25s'")
        connection.is_patient = True
    actor.backend = connection.info.backend_pid
    try:
        return _execute(connection, sql, params)
    finally:
        actor.backend = None


_execute = db._Connection.execute


def _send_at_point(adapter: Any, request: Any, **options: Any) -> Any:
    if actor := current_actor():
        actor.stop_at(f"SMU {request.method} {request.path_url}", frozenset({("SMU", "", True)}))
    return _send(adapter, request, **options)


_send = local_calls.LocalAdapter.send


class _Clock:
    """The clock of a module: a pause of an actor is a point, and only pauses move its time."""

    start = 0.0  # of the execution

    def __init__(self, otherwise: Any) -> None:
        self._otherwise = otherwise

    def monotonic(self) -> float:
        actor = current_actor()
        return time.monotonic() if actor is None else self.start + actor.clock

    def sleep(self, seconds: float) -> None:
        actor = current_actor()
        if actor is None:
            self._otherwise.sleep(seconds)
        else:
            actor.pause()


class _PausingEvent(threading.Event):
    """An event whose wait is a pause of the actor. It times out when the others have not set it after two pauses."""

    def wait(self, timeout: float | None = None) -> bool:
        actor = current_actor()
        if actor is None:
            return super().wait(timeout)
        for _ in range(2):
            if not self.is_set():
                actor.pause()
        return self.is_set()


@contextmanager
def points() -> Iterator[None]:
    """Make points of all accesses to shared state. Threads without an actor are not affected."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(db._Connection, "execute", _execute_at_point)
        patch.setattr(local_calls.LocalAdapter, "send", _send_at_point)
        patch.setattr(reserve_coalescing, "Event", _PausingEvent)
        for module in (retry, runner):
            patch.setattr(module, "time", _Clock(module.time))
        yield
