"""The whole system in one process: every service's own code, real gRPC, a real PostgreSQL, and faults at the seams.

Only what lies outside is replaced: SMU by its fake, which runs in this process too, and the broker by a recorder (the
broker cells use a real one). Orchestrators are made as production makes them; one is the *victim* of faults and
deaths, another, the *rescuer*, does what recovery does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask

from fakes.smu.app import create_app as fake_smu
from harness.api_client import Inbox
from services.chassis import json_codec, tokens
from services.chassis.settings import BrokerSettings, ProcessSettings
from services.event.app import build as build_event
from services.event.settings import Settings as EventSettings
from services.orchestrator.admin import ParkedSagas
from services.orchestrator.app import Orchestrator, Seams, compose
from services.orchestrator.saga.journal import LEASE_SECONDS
from services.orchestrator.settings import Settings
from services.order.app import build as build_order
from services.order.settings import Settings as OrderSettings
from services.order.sweeper import Sweeper as OrderSweeper
from services.user import smu
from services.user.app import build as build_user
from services.user.settings import Settings as UserSettings
from tests.saga.in_process.db_fixtures import Rows
from tests.saga.in_process.inventory_server import InventoryServer
from tests.saga.in_process.local_calls import Caller, LocalAdapter, LocalHttp, LocalPool, call
from tests.support.databases import Databases

JWT_SECRET = "test-jwt-secret-test-jwt-secret-test"
INTERNAL_SECRET = "test-internal-secret-test-internal-secret"
SMU_KEY = "key"
QR_KEY = b"0123456789abcdef0123456789abcdef"
NO_BROKER = BrokerSettings("broker.test", 5672, "nobody", "none")
USER, ORDER, EVENT, SMU = "http://user.test", "http://order.test", "http://event.test", "http://smu.test"


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
        self.messages.append((message_id, json_codec.decode(body)))


class InProcessSystem(Rows):
    """One system for a pytest session; scenarios keep apart by fresh users and seats."""

    def __init__(self, databases: Databases) -> None:
        super().__init__(databases)
        self.process = ProcessSettings("test", 1, "127.0.0.1", JWT_SECRET, INTERNAL_SECRET, "WARNING", 4)
        self.smu = fake_smu(SMU_KEY)
        self.inbox = Inbox(SMU, LocalPool(self.smu))  # type: ignore[arg-type]
        self.apps = {USER: self._user(), ORDER: self._order(), EVENT: self._event()}
        self.http = LocalHttp(self.apps)
        self.inventory = InventoryServer(self.process, self.dbs["inventory"])
        self.order_sweeper = OrderSweeper(self.dbs["order"], grace_seconds=0)
        self.rescuer = self.orchestrator(Seams(publisher=Published()))
        self._impatient = self.orchestrator(Seams(publisher=Published()), Budget(forward=0.0, resolve=0.0))
        self._beaten: dict[UUID, float] = {}

    def close(self) -> None:
        self.inventory.stop()
        for orchestrator in (self.rescuer, self._impatient):
            orchestrator.db.close()
        super().close()

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

    def _user(self) -> Flask:
        settings = UserSettings(
            process=replace(self.process, service="user-service"),
            database=self.databases.database_for("user"),
            smu_url=SMU,
            smu_key=SMU_KEY,
            stripe_base="http://stripe.test",
            stripe_key="sk_test_x",
            stripe_webhook_secret="whsec_x",
        )
        with pytest.MonkeyPatch.context() as patch:  # an adapter is what `requests` has for other ways to send
            patch.setattr(smu, "HTTPAdapter", type("ToFakeSmu", (LocalAdapter,), {"app": self.smu}))
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

    def beat(self, orchestrator: Orchestrator) -> None:
        """Keep an orchestrator's lease, as its heartbeat would."""
        journal, now = orchestrator.journal, time.monotonic()
        if now - self._beaten.get(journal.instance_id, 0.0) > LEASE_SECONDS / 4:
            journal.beat()
            self._beaten[journal.instance_id] = now

    # ── callers

    def token(self, user_id: UUID, role: str = "customer") -> str:
        return tokens.issue(JWT_SECRET, user_id, role, str(uuid4()), "access")

    def send_code(self, user_id: UUID) -> tuple[str, str]:
        """(sid, code) of a code that goes to somebody's phone."""
        phone = self.phone(user_id)
        answer = call(
            self.smu,
            "POST",
            "/SendOTP",
            json_codec.encode({"Mobile": phone}),
            {"Content-Type": "application/json", "X-Contacts-Key": SMU_KEY},
        )
        return str(answer.envelope["VerificationSid"]), self.inbox.newest_code(phone)

    def post_webhook(self, payload: bytes, headers: Mapping[str, str]) -> None:
        """What Stripe sends."""
        answer = call(self.apps[USER], "POST", "/api/webhooks/stripe", payload, headers)
        assert answer.status == 200, answer.body

    # ── what goes on by itself

    def sweep(self) -> None:
        """What the two sweepers do, now."""
        self.inventory.sweep()
        while self.order_sweeper.sweep():
            pass

    def recover(self) -> None:
        """What another orchestrator, without faults, does until nothing is left that it can end."""
        self.beat(self.rescuer)
        while self.rescuer.recovery.tick():
            pass
        self.rescuer.completion.tick()

    def impatient_rescue(self) -> None:
        """One round of recovery by an orchestrator that does not ask twice."""
        self._impatient.journal.beat()
        self._impatient.recovery.tick()
        self._impatient.journal.resign()

    def parked(self) -> list[dict[str, Any]]:
        """What the admin command lists."""
        return [dict(row) for row in self.admin().list()]

    def admin(self) -> ParkedSagas:
        """The admin command's verbs."""
        return ParkedSagas(self.dbs["orchestrator"])


__all__ = ["Budget", "Caller", "InProcessSystem", "NeverRevoked", "Published"]
