"""The acts against the running system, in an order that the seed decides. Each act undoes itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from random import Random

import psutil

from harness.runtime import process
from tests.chaos.stack import LINKS, ORCHESTRATORS, PROCESSES, SERVICES, ChaosStack
from tests.support.silent_proxy import POLL_SECONDS
from tests.support.traffic import freeze

DATABASES = ("seats_db", "users_db", "orders_db", "events_db", "sagas_db")
LOCKED = (("seats_db", "seats"), ("users_db", "users"), ("orders_db", "orders"), ("sagas_db", "sagas"))
MOST_SHIFT = 10  # seconds
DELAY_SECONDS = 0.1  # of each piece of data on a slow link
RESET_SECONDS = 3 * POLL_SECONDS  # every connection has got its RST by then
NOT_RUN = {
    "full disk": "needs a small file system for the databases, which only root can mount",
    "slow disk": "needs a device that root can slow down. The locked tables and frozen databases take its place.",
}


@dataclass(frozen=True)
class Act:
    """One act: its kind, its target, its length, and the seconds of rest before it."""

    kind: str
    target: str
    seconds: float
    rest: float

    def __str__(self) -> str:
        return f"{self.kind} {self.target}"


LONG_RUN_SECONDS = 600  # a shorter run has shorter acts and rests
REST_SECONDS = (5.0, 30.0)
SHORT_LENGTH, SHORT_REST = 0.15, 0.06
RESTORE_SECONDS = 1.5  # on average, from the end of an act until every process is healthy


def plan(seed: int, seconds: float) -> list[Act]:
    """Return the acts of a run. Every kind comes once before the first one comes again."""
    rng, total, acts = Random(seed), 0.0, list[Act]()
    length, rest = (1.0, 1.0) if seconds >= LONG_RUN_SECONDS else (SHORT_LENGTH, SHORT_REST)
    for kind in _deal(rng, list(KINDS)):
        low, high = KINDS[kind].seconds
        lasts, rests = rng.uniform(low, low + (high - low) * length), rng.uniform(*REST_SECONDS) * rest
        total += rests + lasts + RESTORE_SECONDS
        if total > seconds:
            break
        acts.append(Act(kind, rng.choice(KINDS[kind].targets), round(lasts, 2), round(rests, 2)))
    return acts


def _deal(rng: Random, kinds: list[str]) -> Iterator[str]:
    while True:
        rng.shuffle(kinds)
        yield from kinds


# ── processes


def kill(stack: ChaosStack, act: Act) -> None:
    """Send SIGKILL to a process and all that it started. The supervisor starts it again."""
    process.kill(stack.identity(act.target))


def kill_worker(stack: ChaosStack, act: Act) -> None:
    """Send SIGKILL to the worker process of a service. The process that watches it ends, too."""
    leader = stack.identity(act.target).find()
    for worker in leader.children() if leader else ():
        _signal(worker.pid, signal.SIGKILL)


def kill_backend(stack: ChaosStack, act: Act) -> None:
    """Send SIGKILL to one backend of PostgreSQL, which then ends all others and recovers."""
    sql = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid() LIMIT 1"
    for row in stack.system.rows(act.target, sql, act.target):
        _signal(row["pid"], signal.SIGKILL)


def freeze_process(stack: ChaosStack, act: Act) -> None:
    """Stop a process with SIGSTOP, and let it continue."""
    with suppress(psutil.NoSuchProcess), freeze(stack.system, act.target):
        time.sleep(act.seconds)


def freeze_and_kill(stack: ChaosStack, act: Act) -> None:
    """Stop a process with SIGSTOP, and kill it before it can continue."""
    with suppress(psutil.NoSuchProcess), freeze(stack.system, act.target):
        time.sleep(act.seconds)
        process.kill(stack.identity(act.target))


def restart(stack: ChaosStack, act: Act) -> None:
    """Stop a process as in production, and start it again."""
    stack.stack.restart(act.target)


# ── network


def silence(stack: ChaosStack, act: Act) -> None:
    """Cut a link without a sign: no answer and no RST. At the end, its old connections are unknown and get RST."""
    stack.links[act.target].silence()
    time.sleep(act.seconds)
    stack.links[act.target].reset()
    time.sleep(RESET_SECONDS)
    stack.links[act.target].take_over()


def reset(stack: ChaosStack, act: Act) -> None:
    """Cut a link with RST for every connection."""
    stack.links[act.target].reset()
    time.sleep(act.seconds)
    stack.links[act.target].take_over()


def slow_down(stack: ChaosStack, act: Act) -> None:
    """Delay all data on a link."""
    stack.links[act.target].delay_seconds = DELAY_SECONDS
    time.sleep(act.seconds)
    stack.links[act.target].delay_seconds = 0.0


# ── databases and broker


def end_sessions(stack: ChaosStack, act: Act) -> None:
    """Terminate all sessions of one database, as an administrator does."""
    sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
    stack.system.rows(act.target, sql, act.target)


def hold_lock(stack: ChaosStack, act: Act) -> None:
    """Lock a table against writes, as the migration of an outsider does."""
    database, _, table = act.target.partition(".")
    with closing(stack.system.connect(database)) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
        time.sleep(act.seconds)
        connection.rollback()


def kill_behind_lock(stack: ChaosStack, act: Act) -> None:
    """Lock the orders, so that sagas stop between two steps, and kill an orchestrator before the lock ends."""
    with closing(stack.system.connect("orders_db")) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute("LOCK TABLE orders IN EXCLUSIVE MODE")
        time.sleep(act.seconds)
        process.kill(stack.identity(act.target))
        connection.rollback()


def shift_clock(stack: ChaosStack, act: Act) -> None:
    """Move the clock of one database, forward or back."""
    database, _, seconds = act.target.partition(" by ")
    with stack.system.clock(database, int(seconds)):
        time.sleep(act.seconds)


def raise_memory_alarm(stack: ChaosStack, act: Act) -> None:
    """Let RabbitMQ block all publishers, as it does when memory is short."""
    stack.run_rabbitmqctl("set_vm_memory_high_watermark", "absolute", "1MB")
    time.sleep(act.seconds)
    stack.run_rabbitmqctl("set_vm_memory_high_watermark", "0.4")


@dataclass(frozen=True)
class Kind:
    """A kind of act: its function, its possible targets, and its shortest and longest time in seconds."""

    perform: Callable[[ChaosStack, Act], None]
    targets: tuple[str, ...]
    seconds: tuple[float, float] = (0.0, 0.0)


KINDS: Mapping[str, Kind] = {
    "kill": Kind(kill, PROCESSES),
    "kill the worker of": Kind(kill_worker, SERVICES),
    "kill a backend of": Kind(kill_backend, DATABASES),
    "freeze": Kind(freeze_process, (*PROCESSES, "fake-smu", "fake-stripe"), (1.0, 8.0)),
    "freeze and kill": Kind(freeze_and_kill, PROCESSES, (1.0, 8.0)),
    "kill behind a lock": Kind(kill_behind_lock, ORCHESTRATORS, (0.5, 1.5)),
    "restart": Kind(restart, PROCESSES),
    "silence": Kind(silence, tuple(LINKS), (1.0, 8.0)),
    "reset": Kind(reset, tuple(LINKS), (0.5, 4.0)),
    "slow down": Kind(slow_down, tuple(LINKS), (1.0, 8.0)),
    "end the sessions of": Kind(end_sessions, DATABASES),
    "lock": Kind(hold_lock, tuple(f"{database}.{table}" for database, table in LOCKED), (1.0, 4.0)),
    "shift the clock of": Kind(
        shift_clock,
        tuple(f"{name} by {seconds}" for name in DATABASES for seconds in (-MOST_SHIFT, MOST_SHIFT)),
        (1.0, 8.0),
    ),
    "memory alarm of": Kind(raise_memory_alarm, ("rabbitmq",), (0.5, 4.0)),
}


def perform(stack: ChaosStack, act: Act) -> None:
    """Perform an act, and return when it has been undone."""
    KINDS[act.kind].perform(stack, act)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
