"""The running system of the crash tests: real processes, and users and seats of its own for each test."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self

import urllib3
from prometheus_client.parser import text_string_to_metric_families
from psycopg2.extensions import parse_dsn

from harness import Stack, db, runtime
from harness.api_client import Inbox
from harness.runtime import ports
from services.chassis.db import Database, Row
from services.chassis.settings import Address, DatabaseSettings
from tests.saga.crash.fork_server import ForkServer
from tests.support import inserts, queue_admin
from tests.support.fakes_control import Fake
from tests.support.people import Person, token
from tests.support.waiting import wait_until

ORCHESTRATOR = "orchestrator-service"
DATABASES = ("seats_db", "users_db", "orders_db", "sagas_db")
EVENT = "e0e0e0e0-0000-0000-0000-000000000001"  # the first event of the seed, which is in HALL-A
READY_SECONDS = 20


@dataclass(frozen=True)
class KillableOrchestrator:
    """An orchestrator process that a test kills, or that kills itself at a crash point."""

    pid: int
    url: str
    fork_server: ForkServer

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal, or None while the process runs."""
        return self.fork_server.exit_code(self.pid)

    def await_exit(self, seconds: float) -> tuple[int, float]:
        """Return the exit code and the time of the exit in seconds since the epoch.

        Raises AssertionError if the process is still running after `seconds`.
        """
        wait_until(lambda: self.exit_code() is not None, seconds, f"{self.url} has exited")
        return self.exit_code() or 0, time.time()


class CrashTestSystem:
    """All processes of a stack except the gateway, and additional orchestrators that tests kill."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.rescuer = stack.url(ORCHESTRATOR)
        self.smu = Fake(stack.url("fake-smu"))
        self.fork_server = ForkServer(stack.run_dir.path)
        self._dbs = {name: Database(_read_dsn(stack.dsn(name))) for name in DATABASES}
        self._key = stack.env("user-service")["PRIVATE_KEY"]
        self._pool = urllib3.PoolManager(num_pools=64, maxsize=64, retries=False)
        self.inbox = Inbox(stack.url("fake-smu"), self._pool)
        self._orchestrator_numbers = count(1)

    @classmethod
    @contextmanager
    def up(cls, run_dir: Path) -> Iterator[Self]:
        """Run the system until the end of the block."""
        with runtime.up(run_dir, env={"LOG_LEVEL": "WARNING"}, only=[ORCHESTRATOR], quiet=True) as stack:
            system = cls(stack)
            try:
                yield system
            finally:
                system.fork_server.close()
                for database in system._dbs.values():
                    database.close()

    # ── processes

    @contextmanager
    def killable_orchestrators(
        self, *environments: Mapping[str, str], may_die_early: bool = False
    ) -> Iterator[list[KillableOrchestrator]]:
        """Start an orchestrator for each environment, and kill the ones that outlive the block.

        They are ready, unless `may_die_early`: they may crash during their first recovery.
        """
        claimed = ports.claim([ports.FALLBACK_PORTS.start] * len(environments))
        started = [self._start(port, changes) for port, changes in zip(claimed, environments, strict=True)]
        try:
            for orchestrator in started if not may_die_early else ():
                wait_until(partial(self._is_ready, orchestrator), READY_SECONDS, f"{orchestrator.url} is ready")
            yield started
        finally:
            for orchestrator in started:
                self.fork_server.kill(orchestrator.pid)
            ports.release(claimed)

    def _start(self, port: int, changes: Mapping[str, str]) -> KillableOrchestrator:
        env = {**self.stack.env(ORCHESTRATOR), **changes, "PORT": str(port)}
        log = self.stack.run_dir.logs / f"orchestrator-{next(self._orchestrator_numbers)}.log"
        return KillableOrchestrator(self.fork_server.start(env, log), f"http://{ports.HOST}:{port}", self.fork_server)

    def _is_ready(self, orchestrator: KillableOrchestrator) -> bool:
        """Whether it serves requests and has read the revoked sessions, without which it refuses to move money."""
        assert orchestrator.exit_code() is None, f"{orchestrator.url} did not start: see {self.stack.run_dir.logs}"
        try:
            return self._client(inserts.User()).at(orchestrator.url).post("/api/pay").status == 400
        except urllib3.exceptions.HTTPError:
            return False

    @contextmanager
    def without_rescuer(self) -> Iterator[None]:
        """Kill the rescuer for the duration of the block, so that no process recovers sagas."""
        self.stack.kill(ORCHESTRATOR)
        try:
            yield
        finally:
            self.stack.start(ORCHESTRATOR)

    # ── users and seats

    def people(self, *users: inserts.User) -> list[Person]:
        """Insert users and return them as clients of the rescuer."""
        with closing(self.connect("users_db")) as connection:
            inserts.users(connection, users)
        return [self._client(user) for user in users]

    def person(self, balance: int) -> Person:
        """Insert a customer with an opening balance in whole credits."""
        return self.people(inserts.User(credits=Decimal(balance)))[0]

    def seat(self, category: str) -> str:
        """Insert an AVAILABLE seat of the first event."""
        with closing(self.connect("seats_db")) as connection:
            [seat] = inserts.seats(connection, 1, category, EVENT)
        return seat

    def _client(self, user: inserts.User) -> Person:
        access = token(self._key, user.user_id, user.role)
        details = {"user_id": user.user_id, "email": user.email}
        return Person(self.rescuer, access, details, None, self._pool, user.phone)

    def notices(self, person: Person) -> list[str]:
        """The texts of all SMS and e-mails that a user has received."""
        headers = {"Accept": "application/json"}
        mails = self._pool.request("GET", f"{self.inbox.url}/inbox", {"email": person.email}, headers)
        return [str(notice) for notice in (*self.inbox.messages(person.phone), *mails.json()["messages"])]

    # ── databases, metrics and queues

    def run(self, database: str, sql: str, **params: Any) -> list[Row]:
        """Run a statement in its own transaction, and return its rows."""
        with self._dbs[database].transaction() as tx:
            return tx.all(sql, **params)

    def connect(self, database: str) -> Any:
        """Open a connection as superuser. The caller closes it."""
        return db.connect(self.stack, database)

    def read_saga_ends(self, people: list[Person]) -> set[tuple[str, int]]:
        """The different (status, epoch) of the sagas of some users."""
        sql = "SELECT status::text AS status, epoch FROM sagas WHERE caller::text = ANY(%(callers)s)"
        rows = self.run("sagas_db", sql, callers=[person.user_id for person in people])
        return {(row["status"], row["epoch"]) for row in rows}

    def insert_notice(self, saga_id: Any, person: Person) -> None:
        """Insert the outbox row of a booking."""
        sql = """INSERT INTO outbox (saga_id, user_id, message, fields)
            SELECT saga_id, %(user)s, 'booking_confirmed', result FROM sagas WHERE saga_id = %(saga)s RETURNING 1"""
        self.run("sagas_db", sql, saga=saga_id, user=person.user_id)

    def metric(self, url: str, name: str, **labels: str) -> float:
        """The value of a metric of one process, or 0 if it has not counted yet."""
        text = self._pool.request("GET", f"{url}/metrics").data.decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(sample.value for sample in samples if sample.name == name and sample.labels == labels)

    def message_ids(self, queue: str) -> set[str]:
        """The ids of all messages in a queue, which stay there."""
        return queue_admin.message_ids(self.stack, queue)

    def count_running_sagas(self) -> int:
        """The number of sagas that have not ended."""
        return int(self.run("sagas_db", "SELECT count(*) FROM sagas WHERE status = 'RUNNING'")[0]["count"])


def _read_dsn(dsn: str) -> DatabaseSettings:
    parts = parse_dsn(dsn)
    return DatabaseSettings(
        (Address(parts["host"], int(parts["port"])),), parts["dbname"], parts["user"], parts["password"], pool_size=16
    )
