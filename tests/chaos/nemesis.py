"""The acts against the running system, in an order that the seed decides. Each act undoes itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from random import Random

import psutil
import psycopg2

from harness.errors import StackError
from harness.runtime import process
from tests.chaos.stack import (
    CUTS,
    DISKS,
    FAKES,
    HEALTHY_SECONDS,
    ORCHESTRATORS,
    PROCESSES,
    SERVICES,
    ChaosStack,
)
from tests.support import network_cables, queue_admin, small_disk
from tests.support.silent_proxy import POLL_SECONDS, SilentProxy
from tests.support.traffic import freeze
from tests.support.waiting import wait_until

DATABASES = ("seats_db", "users_db", "orders_db", "events_db", "sagas_db")
LOCKED = (("seats_db", "seats"), ("users_db", "users"), ("orders_db", "orders"), ("sagas_db", "sagas"))
MOST_SHIFT = 10  # seconds
DELAY_SECONDS = 0.1  # of each piece of data on a slow link
RESET_SECONDS = 3 * POLL_SECONDS  # every connection has got its RST by then
# Without any free byte, the quorum queues of RabbitMQ end, and only a restart of the node starts them again. Its own
# limit of 50 MB stops the publishers before that.
FREE_BYTES = {"postgres": 0, "rabbitmq": 20_000_000}
ALARM_SECONDS = 15.0  # RabbitMQ checks its disk more often than this
STRACE = shutil.which("strace")
FLUSH_DELAY = 100_000  # microseconds before each flush on a slow disk. PostgreSQL allows no more


@dataclass(frozen=True)
class Act:
    """One act: its kind, its target, its length, and the seconds of rest before it."""

    kind: str
    target: str
    seconds: float
    rest: float
    second: Act | None = None  # an act that begins at the same time

    @property
    def parts(self) -> tuple[Act, ...]:
        """This act, and the second one if there is one."""
        return (self, self.second) if self.second else (self,)

    @property
    def longest(self) -> float:
        """The seconds until both have ended."""
        return max(part.seconds for part in self.parts)

    def __str__(self) -> str:
        return " and ".join(f"{part.kind} {part.target}" for part in self.parts)


LONG_RUN_SECONDS = 300  # a shorter run has shorter acts and rests
REST_SECONDS = (5.0, 30.0)
SHORT_LENGTH, SHORT_REST = 0.15, 0.06
PAIRS = 0.25  # the share of acts that begin together with the act before
RESTORE_SECONDS = 1.5  # on average, from the end of an act until every process is healthy


def plan(seed: int, seconds: float, kinds: Mapping[str, Kind] | None = None) -> list[Act]:
    """Return the acts of a run. Every kind comes once before the first one comes again."""
    kinds = KINDS if kinds is None else kinds
    rng, acts = Random(seed), list[Act]()
    dealt = _deal(rng, list(kinds))
    length, rest = (1.0, 1.0) if seconds >= LONG_RUN_SECONDS else (SHORT_LENGTH, SHORT_REST)
    while True:
        kind = next(dealt)
        low, high = kinds[kind].seconds
        lasts, rests = rng.uniform(low, low + (high - low) * length), rng.uniform(*REST_SECONDS) * rest
        act = Act(kind, rng.choice(kinds[kind].targets), round(lasts, 2), round(rests, 2))
        if rng.random() < PAIRS and acts and acts[-1].second is None and acts[-1].target != act.target:
            acts[-1] = replace(acts[-1], second=act)
        else:
            acts.append(act)
        if sum(act.rest + act.longest + RESTORE_SECONDS for act in acts) > seconds:
            return acts[:-1]


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
    with suppress(psycopg2.Error):
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
    """Stop a process as in production, and start it again. The supervisor repeats a start that fails."""
    with suppress(StackError):
        stack.stack.restart(act.target)


# ── network


def silence(stack: ChaosStack, act: Act) -> None:
    """Cut a link without a sign: no answer and no RST. At the end, its old connections are unknown and get RST."""
    links = _find_links(stack, act)
    for link in links:
        link.silence()
    time.sleep(act.seconds)
    for link in links:
        link.reset()
    time.sleep(RESET_SECONDS)
    for link in links:
        link.take_over()


def reset(stack: ChaosStack, act: Act) -> None:
    """Cut a link with RST for every connection."""
    links = _find_links(stack, act)
    for link in links:
        link.reset()
    time.sleep(act.seconds)
    for link in links:
        link.take_over()


def pull_cable(stack: ChaosStack, act: Act) -> None:
    """Let the kernel lose all packets of a link, and later none. Connections that both ends still have continue."""
    cables = [stack.cables[name] for name in CUTS[act.target]]
    for cable in cables:
        cable.pull()
    time.sleep(act.seconds)
    for cable in cables:
        cable.plug()


def slow_down(stack: ChaosStack, act: Act) -> None:
    """Delay all data on a link."""
    links = _find_links(stack, act)
    for link in links:
        link.delay_seconds = DELAY_SECONDS
    time.sleep(act.seconds)
    for link in links:
        link.delay_seconds = 0.0


def _find_links(stack: ChaosStack, act: Act) -> list[SilentProxy]:
    return [stack.links[name] for name in CUTS[act.target]]


# ── databases and broker


def end_sessions(stack: ChaosStack, act: Act) -> None:
    """Terminate all sessions of one database, as an administrator does."""
    sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
    _try(stack, act.target, sql, act.target)


def hold_lock(stack: ChaosStack, act: Act) -> None:
    """Lock a table against writes, as the migration of an outsider does."""
    database, _, table = act.target.partition(".")
    with _locked(stack, database, table):
        time.sleep(act.seconds)


def kill_behind_lock(stack: ChaosStack, act: Act) -> None:
    """Lock the orders, so that sagas stop between two steps, and kill an orchestrator before the lock ends."""
    with _locked(stack, "orders_db", "orders"):
        time.sleep(act.seconds)
        process.kill(stack.identity(act.target))


def shift_clock(stack: ChaosStack, act: Act) -> None:
    """Move the clock of one database, forward or back."""
    database, _, seconds = act.target.partition(" by ")
    shift = "UPDATE clock_offset SET shift = make_interval(secs => %s)"
    _try(stack, database, shift, int(seconds))
    time.sleep(act.seconds)
    _insist(stack, database, shift, 0)


def slow_disk(stack: ChaosStack, act: Act) -> None:
    """Let each flush of PostgreSQL or RabbitMQ wait, as on a slow disk."""
    (_delay_commits if act.target == "postgres" else _delay_calls)(stack, act)


def _delay_commits(stack: ChaosStack, act: Act) -> None:
    """Let PostgreSQL wait before each flush of the WAL."""
    _try(stack, "sagas_db", f"ALTER SYSTEM SET commit_delay = {FLUSH_DELAY}")
    _try(stack, "sagas_db", "ALTER SYSTEM SET commit_siblings = 0")  # wait also if no other transaction runs
    _try(stack, "sagas_db", "SELECT pg_reload_conf()")
    time.sleep(act.seconds)
    for name in ("commit_delay", "commit_siblings"):
        _insist(stack, "sagas_db", f"ALTER SYSTEM RESET {name}")
    _insist(stack, "sagas_db", "SELECT pg_reload_conf()")


def _delay_calls(stack: ChaosStack, act: Act) -> None:
    """Let the kernel wait before each flush of a process."""
    leader = stack.identity(act.target).find()
    family = process.find_family(leader) if leader else []
    flushes, pids = "fsync,fdatasync", [option for member in family for option in ("-p", str(member.pid))]
    inject = ["-e", f"trace={flushes}", "-e", f"inject={flushes}:delay_enter={FLUSH_DELAY}"]
    with subprocess.Popen(
        [str(STRACE), "-f", "-qq", "-o", os.devnull, *inject, *pids], stderr=subprocess.DEVNULL
    ) as tracer:
        time.sleep(act.seconds)
        tracer.terminate()


def fill_disk(stack: ChaosStack, act: Act) -> None:
    """Leave no free byte on the disk of PostgreSQL, or less than RabbitMQ needs to accept messages.

    While its disk alarm is on, RabbitMQ checks the disk every ten seconds. So it may block publishers after the act.
    """
    with small_disk.filled(stack.disks[act.target], FREE_BYTES[act.target]):
        if act.target == "rabbitmq":
            wait_until(
                lambda: not queue_admin.accepts_messages(stack.stack), ALARM_SECONDS, "RabbitMQ blocks publishers"
            )
        time.sleep(act.seconds)


def raise_memory_alarm(stack: ChaosStack, act: Act) -> None:
    """Let RabbitMQ block all publishers, as it does when memory is short."""
    stack.broker(act.target).run_rabbitmqctl("set_vm_memory_high_watermark", "absolute", "1MB")
    time.sleep(act.seconds)
    stack.broker(act.target).run_rabbitmqctl("set_vm_memory_high_watermark", "absolute", "512MB")


@dataclass(frozen=True)
class Kind:
    """A kind of act: its function, its possible targets, and its shortest and longest time in seconds."""

    perform: Callable[[ChaosStack, Act], None]
    targets: tuple[str, ...]
    seconds: tuple[float, float] = (0.0, 0.0)


KINDS: dict[str, Kind] = {
    "kill": Kind(kill, (*PROCESSES, *FAKES)),
    "kill the worker of": Kind(kill_worker, SERVICES),
    "kill a backend of": Kind(kill_backend, DATABASES),
    "freeze": Kind(freeze_process, (*PROCESSES, *FAKES), (1.0, 8.0)),
    "freeze and kill": Kind(freeze_and_kill, PROCESSES, (1.0, 8.0)),
    "kill behind a lock": Kind(kill_behind_lock, ORCHESTRATORS, (0.5, 1.5)),
    "restart": Kind(restart, PROCESSES),
    "silence": Kind(silence, tuple(CUTS), (1.0, 8.0)),
    "reset": Kind(reset, tuple(CUTS), (0.5, 4.0)),
    "slow down": Kind(slow_down, tuple(CUTS), (1.0, 8.0)),
    "end the sessions of": Kind(end_sessions, DATABASES),
    "lock": Kind(hold_lock, tuple(f"{database}.{table}" for database, table in LOCKED), (1.0, 4.0)),
    "shift the clock of": Kind(
        shift_clock,
        tuple(f"{name} by {seconds}" for name in DATABASES for seconds in (-MOST_SHIFT, MOST_SHIFT)),
        (1.0, 8.0),
    ),
    "memory alarm of": Kind(raise_memory_alarm, ("rabbitmq",), (0.5, 4.0)),
    "slow disk of": Kind(slow_disk, ("postgres",), (1.0, 8.0)),
}
NOT_RUN = dict[str, str]()
if obstacle := network_cables.find_obstacle():
    NOT_RUN["pull the cable from"] = f"{obstacle} (proxies cut the links instead)"
else:
    KINDS["pull the cable from"] = Kind(pull_cable, tuple(CUTS), (1.0, 8.0))
if obstacle := small_disk.find_obstacle():
    NOT_RUN["full disk of"] = obstacle
else:
    KINDS["full disk of"] = Kind(fill_disk, tuple(DISKS), (1.0, 4.0))
if STRACE and os.geteuid() == 0:
    KINDS["slow disk of"] = Kind(slow_disk, ("postgres", "rabbitmq"), (1.0, 8.0))
else:
    NOT_RUN["slow disk of rabbitmq"] = "strace delays the calls of the kernel, and it needs root and its package"


def perform(stack: ChaosStack, act: Act, kinds: Mapping[str, Kind]) -> None:
    """Perform an act and its second one at once, and return when both have been undone."""
    with ThreadPoolExecutor(len(act.parts)) as together:
        list(together.map(lambda part: kinds[part.kind].perform(stack, part), act.parts))


def _try(stack: ChaosStack, database: str, sql: str, *parameters: object) -> bool:
    """Run a statement. Returns False if the database cannot, because another act works on it."""
    try:
        stack.system.rows(database, sql, *parameters)
    except psycopg2.Error:
        return False
    return True


def _insist(stack: ChaosStack, database: str, sql: str, *parameters: object) -> None:
    """Run a statement that undoes an act, as soon as the database can."""
    wait_until(lambda: _try(stack, database, sql, *parameters), HEALTHY_SECONDS, sql)


@contextmanager
def _locked(stack: ChaosStack, database: str, table: str) -> Iterator[None]:
    """Lock a table against writes during the block. Another act can end the session, and then the lock ends, too."""
    with ExitStack() as opened:
        with suppress(psycopg2.Error):
            connection = opened.enter_context(closing(stack.system.connect(database)))
            connection.autocommit = False
            connection.cursor().execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
        yield


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
