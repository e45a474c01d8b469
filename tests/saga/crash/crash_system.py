"""The running system of the crash tests: real processes, separate people and seats for each test, and all rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

import pika
import psycopg2
import psycopg2.extras
import urllib3
from prometheus_client.parser import text_string_to_metric_families
from psycopg2.extensions import parse_dsn

from harness import Stack, runtime
from harness.api_client import Api, Inbox
from harness.runtime import ports
from services.chassis import tokens
from services.chassis.db import Database, Row
from services.chassis.settings import DatabaseSettings
from tests.saga.crash.fork_server import ForkServer

T = TypeVar("T")
ORCHESTRATOR = "orchestrator-service"
DATABASES = ("seats_db", "users_db", "orders_db", "sagas_db")
READY_SECONDS = 20
LOOK_SECONDS = 0.02


def until(what: str, reached: Callable[[], T | None], seconds: float) -> T:
    """Look until `reached()` gives something and return it. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < deadline, f"after {seconds:g} s still not: {what}"
        time.sleep(LOOK_SECONDS)  # between two looks at a condition; bounded by the deadline
    return found


@dataclass(frozen=True)
class Person:
    """An account with a phone of its own, who may speak to any orchestrator."""

    user_id: str
    email: str
    phone: str
    token: str
    pool: urllib3.PoolManager

    def at(self, url: str) -> Api:
        """This person at one orchestrator's door."""
        return Api(url, self.token, {"user_id": self.user_id}, pool=self.pool)


@dataclass(frozen=True)
class KillableOrchestrator:
    """One orchestrator process whose end is near."""

    pid: int
    url: str
    fork_server: ForkServer

    def exit_code(self) -> int | None:
        """How it ended, negative for a signal; None while it lives."""
        return self.fork_server.exit_code(self.pid)

    def await_end(self, seconds: float) -> tuple[int, float]:
        """Its exit code and when that was seen (seconds since the epoch). Raises AssertionError when it lives on."""
        (code,) = until(f"{self.url} has ended", self._ended, seconds)
        return code, time.time()

    def _ended(self) -> tuple[int] | None:
        code = self.exit_code()
        return None if code is None else (code,)


class CrashTestSystem:
    """All processes of one stack but the gateway, and the killable_orchestrators beside them."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.rescuer = stack.url(ORCHESTRATOR)
        self.fork_server = ForkServer(stack.run_dir.path)
        self._dbs = {name: Database(_settings(stack.dsn(name))) for name in DATABASES}
        self._secret = stack.env(ORCHESTRATOR)["JWT_SECRET"]
        self._pool = urllib3.PoolManager(num_pools=64, maxsize=64, retries=False)
        self.inbox = Inbox(stack.url("fake-smu"), self._pool)
        self._orchestrator_numbers = count(1)

    @classmethod
    @contextmanager
    def up(cls, run_dir: Path) -> Iterator[Self]:
        """The system while it runs."""
        with runtime.up(run_dir, env={"LOG_LEVEL": "WARNING"}, only=[ORCHESTRATOR], quiet=True) as stack:
            system = cls(stack)
            try:
                yield system
            finally:
                system.fork_server.close()
                for db in system._dbs.values():
                    db.close()

    # ── processes

    @contextmanager
    def killable_orchestrators(
        self, *environments: Mapping[str, str], die_at_once: bool = False
    ) -> Iterator[list[KillableOrchestrator]]:
        """Orchestrators with an environment each laid over the rescuer's; those that outlive the block are killed.

        They are ready, unless they may `die_at_once`: of what they find to do, before anybody asks them.
        """
        chosen = ports.claim([ports.FALLBACK_PORTS.start] * len(environments))
        started = [self._born(port, laid) for port, laid in zip(chosen, environments, strict=True)]
        try:
            for orchestrator in started if not die_at_once else ():
                until(f"{orchestrator.url} is ready", partial(self._is_ready, orchestrator), READY_SECONDS)
            yield started
        finally:
            for orchestrator in started:
                self.fork_server.kill(orchestrator.pid)
            ports.release(chosen)

    def _born(self, port: int, laid: Mapping[str, str]) -> KillableOrchestrator:
        env = {**self.stack.env(ORCHESTRATOR), **laid, "PORT": str(port)}
        log = self.stack.run_dir.logs / f"orchestrator-{next(self._orchestrator_numbers)}.log"
        return KillableOrchestrator(self.fork_server.start(env, log), f"http://{ports.HOST}:{port}", self.fork_server)

    def _is_ready(self, orchestrator: KillableOrchestrator) -> bool:
        """It serves, and knows which logins were ended: until then it moves no money."""
        assert orchestrator.exit_code() is None, f"{orchestrator.url} did not start: see {self.stack.run_dir.logs}"
        try:
            return self._stranger.at(orchestrator.url).post("/api/pay").status == 400
        except urllib3.exceptions.HTTPError:
            return False

    @property
    def _stranger(self) -> Person:
        user_id = str(uuid4())
        return Person(user_id, "", "", self._token(user_id, "customer"), self._pool)

    # ── people and seats

    def person(self, balance: int, *, flagged: bool = False, role: str = "customer") -> Person:
        """An account with an opening balance in whole credits."""
        user_id, phone = str(uuid4()), f"+65{uuid4().int % 10**10:010d}"
        email = f"{user_id}@example.com"
        self.run(
            "users_db",
            """WITH account AS (
                INSERT INTO users (user_id, email, phone, password_hash, credit_balance, is_flagged, role)
                VALUES (%(user_id)s, %(email)s, %(phone)s, 'none', %(balance)s, %(flagged)s, %(role)s))
            INSERT INTO credit_entries (key, user_id, amount, kind)
            VALUES ('opening:' || %(user_id)s, %(user_id)s, %(balance)s, 'OPENING') RETURNING 1""",
            user_id=user_id, email=email, phone=phone, balance=Decimal(balance), flagged=flagged, role=role,
        )  # fmt: skip
        return Person(user_id, email, phone, self._token(user_id, role), self._pool)

    def seat(self, category: str) -> str:
        """A free seat of the first event, which is in HALL-A."""
        seat_id = str(uuid4())
        self.run(
            "seats_db",
            """INSERT INTO seats (seat_id, event_id, row_number, seat_number, category)
            VALUES (%(seat)s, 'e0e0e0e0-0000-0000-0000-000000000001', 'T', (random() * 2000000000)::int, %(category)s)
            RETURNING 1""",
            seat=seat_id, category=category,
        )  # fmt: skip
        return seat_id

    def _token(self, user_id: str, role: str) -> str:
        return tokens.issue(self._secret, user_id, role, str(uuid4()), "access")  # type: ignore[arg-type]

    def letters(self, person: Person) -> list[str]:
        """The texts of the SMS and e-mails that somebody has got, newest first."""
        found = [*self.inbox.messages(person.phone), *self._mail(person.email)]
        return [str(letter) for letter in found]

    def _mail(self, address: str) -> list[Any]:
        fields = {"email": address}
        answer = self._pool.request("GET", f"{self.inbox.url}/inbox", fields, {"Accept": "application/json"})
        return list(answer.json()["messages"])

    @contextmanager
    def slow_mail(self, address: str, kind: str) -> Iterator[Callable[[], bool]]:
        """SMU takes a second over the next e-mail to somebody: `late` has sent it at once, `hang` never will.

        Yields whether it has it in hand.
        """
        fault: dict[str, Any] = {"kind": kind, "path": "*/SendEmail", "where": {"emailAddress": address}, "ms": 1000}
        self._smu("POST", {**fault, **({"effect": False} if kind == "hang" else {})})
        try:
            yield lambda: any(known["fired"] for known in self._smu("GET")["faults"])
        finally:
            self._smu("DELETE")

    def _smu(self, method: str, fault: Mapping[str, Any] | None = None) -> Any:
        answer = self._pool.request(method, f"{self.inbox.url}/_control/faults", json=fault)
        assert answer.status < 300, answer.data
        return answer.json() if answer.data else {}

    # ── rows

    def run(self, database: str, sql: str, **params: Any) -> list[Row]:
        """The rows of one statement, in a transaction of its own."""
        with self._dbs[database].transaction() as tx:
            return tx.all(sql, **params)

    def connect(self, database: str) -> Any:
        """A superuser's connection, as the invariants want it; the caller closes it."""
        connection = psycopg2.connect(
            self.stack.admin_dsn(database), cursor_factory=psycopg2.extras.RealDictCursor, connect_timeout=5
        )
        connection.autocommit = True
        return connection

    def sagas_of(self, people: list[Person]) -> set[tuple[str, int]]:
        """How the sagas of some callers stand: status and epoch."""
        sql = "SELECT status::text AS status, epoch FROM sagas WHERE caller::text = ANY(%(callers)s)"
        rows = self.run("sagas_db", sql, callers=[person.user_id for person in people])
        return {(row["status"], row["epoch"]) for row in rows}

    def order_status(self, order_id: str) -> str:
        """How an order stands."""
        return str(self.run("orders_db", "SELECT status FROM orders WHERE order_id = %(id)s", id=order_id)[0]["status"])

    def write_notice(self, saga_id: Any, person: Person) -> None:
        """The outbox row of a booking, by hand."""
        sql = """INSERT INTO outbox (saga_id, user_id, message, fields)
            SELECT saga_id, %(user)s, 'booking_confirmed', result FROM sagas WHERE saga_id = %(saga)s RETURNING 1"""
        self.run("sagas_db", sql, saga=saga_id, user=person.user_id)

    def metric(self, url: str, name: str, **labels: str) -> float:
        """One figure of a process; 0 when it has not counted yet."""
        text = self._pool.request("GET", f"{url}/metrics").data.decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(sample.value for sample in samples if sample.name == name and sample.labels == labels)

    def messages(self, queue: str) -> set[str]:
        """The ids of all messages that wait in a queue; they stay there."""
        with closing(pika.BlockingConnection(pika.URLParameters(self.stack.url("rabbitmq")))) as connection:
            channel = connection.channel()
            waiting = iter(lambda: channel.basic_get(queue), (None, None, None))
            return {str(properties.message_id) for _, properties, _ in waiting}  # unacknowledged: put back at once

    def running_sagas(self) -> int:
        """How many sagas have not ended."""
        return int(self.run("sagas_db", "SELECT count(*) FROM sagas WHERE status = 'RUNNING'")[0]["count"])


def _settings(dsn: str) -> DatabaseSettings:
    known = parse_dsn(dsn)
    return DatabaseSettings(
        known["host"], int(known["port"]), known["dbname"], known["user"], known["password"], pool_size=16
    )
