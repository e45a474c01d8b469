"""The whole system in one process: every service's own code, real gRPC, a real PostgreSQL, and faults at the seams.

Only what lies outside is replaced: SMU by its fake (a process of its own), the broker by a recorder (the broker cells
use a real one). Orchestrators are made as production makes them; one is the *victim* of faults and deaths, another,
the *rescuer*, does what recovery does.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from flask import Flask
from flask.testing import FlaskClient

from harness import invariants
from harness.client import Answer
from services.chassis import tokens, wire
from services.chassis.db import Database
from services.chassis.settings import BrokerSettings, ProcessSettings
from services.event.app import build as build_event
from services.event.settings import Settings as EventSettings
from services.orchestrator.admin import ParkedSagas
from services.orchestrator.app import Orchestrator, Seams, compose
from services.orchestrator.settings import Settings
from services.order.app import build as build_order
from services.order.settings import Settings as OrderSettings
from services.order.sweeper import Sweeper as OrderSweeper
from services.user.app import build as build_user
from services.user.settings import Settings as UserSettings
from tests.databases import Databases
from tests.saga.inventory import InventoryServer

JWT_SECRET = "test-jwt-secret-test-jwt-secret-test"
INTERNAL_SECRET = "test-internal-secret-test-internal-secret"
QR_KEY = b"0123456789abcdef0123456789abcdef"
NO_BROKER = BrokerSettings("broker.test", 5672, "nobody", "none")
USER, ORDER, EVENT = "http://user.test", "http://order.test", "http://event.test"
EVENT_ID = UUID("e0e0e0e0-0000-0000-0000-000000000001")
DATABASES = ("inventory", "user", "order", "event", "orchestrator")


@dataclass(frozen=True)
class Budget:
    """How long a saga asks, in seconds: by default as production does."""

    forward: float = 4.0
    resolve: float = 3.0
    park: float = 3600.0


class NeverRevoked:
    """No login was ended."""

    def is_revoked(self, _sid: str) -> bool:
        return False

    def age(self) -> float:
        return 0.0


@dataclass
class Published:
    """What the broker was given, in order; `message_id` → body."""

    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def publish(
        self, _exchange: str, _routing_key: str, body: bytes, *, message_id: str, expiration_ms: int | None = None
    ) -> None:
        self.messages.append((message_id, wire.decode(body)))


class LocalHttp:
    """Carries HTTP to the Flask apps of this process: the whole app, without a socket."""

    def __init__(self, apps: Mapping[str, Flask]) -> None:
        self._clients = {base: app.test_client() for base, app in apps.items()}
        self._lock = threading.Lock()

    def __call__(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        base = next(known for known in self._clients if url.startswith(known))
        client = FlaskClient(self._clients[base].application, self._clients[base].response_wrapper)
        answer = client.open(url.removeprefix(base), method=method, data=body, headers=dict(headers))
        return answer.status_code, answer.data


class World:
    """One system for a pytest session; scenarios keep apart by fresh users and seats."""

    def __init__(self, databases: Databases, smu_url: str) -> None:
        self.databases = databases
        self.process = ProcessSettings("test", 1, "127.0.0.1", JWT_SECRET, INTERNAL_SECRET, "WARNING", 4)
        self.dbs = {name: Database(databases.database_for(name)) for name in DATABASES}
        self.apps = {USER: self._user(smu_url), ORDER: self._order(), EVENT: self._event()}
        self.http = LocalHttp(self.apps)
        self.inventory = InventoryServer(self.process, self.dbs["inventory"])
        self.order_sweeper = OrderSweeper(self.dbs["order"], grace_seconds=0)
        self.rescuer = self.orchestrator(Seams(publisher=Published()))
        self._open: dict[str, Any] = {}

    def close(self) -> None:
        self.inventory.stop()
        for db in self.dbs.values():
            db.close()

    # ── processes

    def orchestrator(self, seams: Seams, budget: Budget | None = None) -> Orchestrator:
        """Another orchestrator, with faults in its seams if wanted; HTTP stays within this process by default."""
        chosen = budget or Budget()
        settings = Settings(
            process=replace(self.process, service="orchestrator-service"),
            database=self.databases.database_for("orchestrator"),
            broker=NO_BROKER,
            inventory_address=self.inventory.address,
            user_url=USER,
            order_url=ORDER,
            event_url=EVENT,
            hold_ttl_seconds=300,
            forward_seconds=chosen.forward,
            resolve_seconds=chosen.resolve,
            park_seconds=chosen.park,
            qr_key=QR_KEY,
        )
        return compose(settings, replace(seams, transport=seams.transport or self.http))

    def _user(self, smu_url: str) -> Flask:
        settings = UserSettings(
            process=replace(self.process, service="user-service"),
            database=self.databases.database_for("user"),
            smu_url=smu_url,
            smu_key="key",
            stripe_base="http://stripe.test",
            stripe_key="sk_test_x",
            stripe_webhook_secret="whsec_x",
        )
        return build_user(settings, self.dbs["user"])

    def _order(self) -> Flask:
        process = replace(self.process, service="order-service")
        settings = OrderSettings(
            process=process, database=self.databases.database_for("order"), grace_seconds=0, sweep_seconds=60
        )
        return build_order(settings, self.dbs["order"])

    def _event(self) -> Flask:
        settings = EventSettings(
            process=replace(self.process, service="event-service"),
            database=self.databases.database_for("event"),
            inventory_http_url="http://inventory.test",
            user_service_url=USER,
        )
        return build_event(settings, self.dbs["event"], revocations=NeverRevoked())

    # ── people and seats

    def new_user(self, balance: str = "1000.00", *, flagged: bool = False, role: str = "customer") -> UUID:
        """An account with a phone of its own and an opening entry."""
        user_id, phone = uuid4(), f"+65{uuid4().int % 10**10:010d}"
        with self.dbs["user"].transaction() as tx:
            tx.run(
                """INSERT INTO users (user_id, email, phone, password_hash, credit_balance, is_flagged, role)
                VALUES (%(id)s, %(id)s || '@example.com', %(phone)s, 'x', %(balance)s, %(flagged)s, %(role)s)""",
                id=user_id, phone=phone, balance=Decimal(balance), flagged=flagged, role=role,
            )  # fmt: skip
            tx.run(
                """INSERT INTO credit_entries (key, user_id, amount, kind)
                VALUES ('opening:' || %(id)s, %(id)s, %(balance)s, 'OPENING')""",
                id=user_id, balance=Decimal(balance),
            )  # fmt: skip
        return user_id

    def new_seat(self, category: str = "CAT2") -> UUID:
        """A free seat of the first event (CAT2 costs 200)."""
        seat_id = uuid4()
        with self.dbs["inventory"].transaction() as tx:
            tx.run(
                """INSERT INTO seats (seat_id, event_id, row_number, seat_number, category)
                VALUES (%(seat)s, %(event)s, 'T', (random() * 2000000000)::int, %(category)s)""",
                seat=seat_id, event=EVENT_ID, category=category,
            )  # fmt: skip
        return seat_id

    def phone(self, user_id: UUID) -> str:
        with self.dbs["user"].transaction() as tx:
            return str(tx.only("SELECT phone FROM users WHERE user_id = %(id)s", id=user_id)["phone"])

    def token(self, user_id: UUID, role: str = "customer") -> str:
        return tokens.issue(JWT_SECRET, user_id, role, str(uuid4()), "access")

    # ── looking and moving time

    def seat(self, seat_id: UUID) -> dict[str, Any]:
        with self.dbs["inventory"].transaction() as tx:
            return dict(tx.only("SELECT *, status::text AS status FROM seats WHERE seat_id = %(id)s", id=seat_id))

    def order_of(self, seat_id: UUID) -> dict[str, Any] | None:
        sql = "SELECT * FROM orders WHERE seat_id = %(id)s ORDER BY created_at DESC, order_id LIMIT 1"
        with self.dbs["order"].transaction() as tx:
            found = tx.one(sql, id=seat_id)
        return dict(found) if found else None

    def transfer_of(self, seat_id: UUID) -> dict[str, Any] | None:
        sql = "SELECT * FROM transfers WHERE seat_id = %(id)s ORDER BY created_at DESC LIMIT 1"
        with self.dbs["order"].transaction() as tx:
            found = tx.one(sql, id=seat_id)
        return dict(found) if found else None

    def transfer(self, transfer_id: str) -> dict[str, Any]:
        with self.dbs["order"].transaction() as tx:
            return dict(tx.only("SELECT * FROM transfers WHERE transfer_id = %(id)s", id=transfer_id))

    def statuses(self, orders: list[str], transfers: list[str]) -> dict[str, str]:
        """The status of each order and transfer by its id."""
        sql = """SELECT order_id AS id, status FROM orders WHERE order_id = ANY(%(orders)s::uuid[])
            UNION ALL SELECT transfer_id, status FROM transfers WHERE transfer_id = ANY(%(transfers)s::uuid[])"""
        with self.dbs["order"].transaction() as tx:
            return {str(row["id"]): row["status"] for row in tx.all(sql, orders=orders, transfers=transfers)}

    def forget_otp_sends(self) -> None:
        """As if ten minutes had passed since the last code."""
        with self.dbs["user"].transaction() as tx:
            tx.run("DELETE FROM otp_sends")

    def post_webhook(self, payload: bytes, headers: Mapping[str, str]) -> None:
        """What Stripe sends."""
        answer = self.apps[USER].test_client().post("/api/webhooks/stripe", data=payload, headers=dict(headers))
        assert answer.status_code == 200, answer.text

    def credits(self, user_id: UUID) -> tuple[Decimal, Decimal]:
        sql = "SELECT credit_balance, frozen_credits FROM users WHERE user_id = %(id)s"
        with self.dbs["user"].transaction() as tx:
            row = tx.only(sql, id=user_id)
        return row["credit_balance"], row["frozen_credits"]

    def sagas(self) -> list[dict[str, Any]]:
        """The whole journal, oldest first."""
        sql = "SELECT saga_id, flow, subject, attempt, status::text AS status FROM sagas ORDER BY created_at"
        with self.dbs["orchestrator"].transaction() as tx:
            return [dict(row) for row in tx.all(sql)]

    def expire_hold(self, seat_id: UUID) -> None:
        """As if the hold's time had passed, for this seat alone: in Inventory, and in Order."""
        past = datetime.now(UTC).replace(year=2020)
        with self.dbs["inventory"].transaction() as tx:
            tx.run("UPDATE seats SET held_until = %(past)s WHERE seat_id = %(id)s", past=past, id=seat_id)
        with self.dbs["order"].transaction() as tx:
            tx.run("UPDATE orders SET expires_at = %(past)s WHERE seat_id = %(id)s", past=past, id=seat_id)

    def sweep(self) -> None:
        """What the two sweepers do, now."""
        self.inventory.sweep()
        while self.order_sweeper.sweep():
            pass

    def connect(self, database: str) -> Any:
        """A superuser's connection for the invariants; kept open, so closing it only ends the look."""
        if database not in self._open:
            service = next(name for name in DATABASES if self.databases.database_for(name).name == database)
            self._open[database] = self.databases.superuser(service)
        return invariants.Kept(self._open[database])

    def impatient_rescue(self) -> None:
        """One round of recovery by an orchestrator that does not ask twice."""
        impatient = self.orchestrator(Seams(publisher=Published()), Budget(forward=0.0, resolve=0.0))
        impatient.journal.beat()
        impatient.recovery.tick()
        impatient.journal.resign()
        impatient.db.close()

    def parked(self) -> list[dict[str, Any]]:
        """What the admin command lists."""
        return [dict(row) for row in self.admin().list()]

    def admin(self) -> ParkedSagas:
        """The admin command's verbs."""
        return ParkedSagas(self.dbs["orchestrator"])

    def forget_sagas(self) -> None:
        """Empty the journal, so that the next execution's is all there is."""
        with self.dbs["orchestrator"].transaction() as tx:
            tx.run("DELETE FROM outbox")
            tx.run("DELETE FROM sagas")

    def recover(self) -> None:
        """What another orchestrator does until nothing is left that it can end."""
        self.rescuer.journal.beat()
        while self.rescuer.recovery.tick():
            pass
        self.rescuer.completion.tick()


class Caller:
    """Somebody who calls an orchestrator's public routes, in this process."""

    def __init__(self, app: Flask, token: str) -> None:
        self._app = app
        self._token = token

    def post(self, path: str, body: Mapping[str, Any], **headers: str) -> Answer:
        return self._call("POST", path, wire.encode(body), headers)

    def get(self, path: str) -> Answer:
        return self._call("GET", path, None, {})

    def _call(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        sent = {"Authorization": f"Bearer {self._token}", **headers}
        answer = self._app.test_client().open(
            path, method=method, data=body, headers=sent, content_type="application/json" if body else None
        )
        return Answer(answer.status_code, answer.data, dict(answer.headers))
