"""The whole system in one process: the code of every service, real gRPC and a real PostgreSQL.

The fake SMU runs in this process, too. A recorder replaces RabbitMQ, except in the cells of `broker publish`. The
orchestrators are built as in production, with optional faults at their seams. One healthy orchestrator, the
*rescuer*, recovers the sagas of the others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from fakes.smu.app import create_app as fake_smu
from harness.api_client import Inbox
from services.chassis import json_codec
from services.chassis.settings import Address, BrokerSettings
from services.event.app import build as build_event
from services.event.settings import Settings as EventSettings
from services.orchestrator.admin import ParkedSagas
from services.orchestrator.app import Orchestrator, Seams, compose
from services.orchestrator.saga.journal import LEASE_SECONDS
from services.orchestrator.settings import Settings
from services.order.app import build as build_order
from services.order.settings import Settings as OrderSettings
from services.order.sweeper import Sweeper as OrderSweeper
from services.user import outside
from services.user.app import build as build_user
from services.user.settings import Settings as UserSettings
from tests.saga.in_process.db_fixtures import SystemDatabases
from tests.saga.in_process.inventory_server import InventoryServer
from tests.saga.in_process.local_calls import LocalAdapter, LocalHttp, LocalPool, call
from tests.support.databases import Databases
from tests.support.leases import beat_as_if_running
from tests.support.service_settings import process_settings, user_token

SMU_KEY = "key"
QR_KEY = b"0123456789abcdef0123456789abcdef"
NO_BROKER = BrokerSettings((Address("broker.test", 5672),), "nobody", "none")
USER, ORDER, EVENT, SMU = "http://user.test", "http://order.test", "http://event.test", "http://smu.test"


@dataclass(frozen=True)
class RetryBudget:
    """Seconds for which a saga retries, by default as in production."""

    forward: float = 4.0
    resolve: float = 3.0
    park: float = 3600.0


NO_RETRY_BUDGET = RetryBudget(forward=0.0, resolve=0.0)


class NoRevocations:
    """A list of revoked sessions that is empty and up to date."""

    def is_revoked(self, _sid: str) -> bool:
        return False

    def age(self) -> float:
        return 0.0

    def find_role(self, _user_id: UUID, _sid: str) -> str | None:
        return "staff"  # only the role of staff is read


@dataclass
class RecordedMessages:
    """A publisher that records (message id, body) of each message."""

    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def send(self, *_message: Any, **_properties: Any) -> None:
        """Send nothing early."""

    def publish(self, *message: Any, message_id: str, **_properties: Any) -> None:
        _exchange, _routing_key, body = message
        self.messages.append((message_id, json_codec.decode(body)))


class InProcessSystem(SystemDatabases):
    """One system for a pytest session. Each scenario has its own users and seat."""

    def __init__(self, databases: Databases) -> None:
        super().__init__(databases)
        self.smu = fake_smu(SMU_KEY)
        self.inbox = Inbox(SMU, LocalPool(self.smu))  # type: ignore[arg-type]
        self.apps = {USER: self._build_user(), ORDER: self._build_order(), EVENT: self._build_event()}
        self.http = LocalHttp(self.apps)
        self.inventory = InventoryServer(self.dbs["inventory"])
        self.order_sweeper = OrderSweeper(self.dbs["order"], grace_seconds=0)
        self.rescuer = self.orchestrator(Seams(publisher=RecordedMessages()))
        self._without_retries = self.orchestrator(Seams(publisher=RecordedMessages()), NO_RETRY_BUDGET)
        self._last_beats: dict[UUID, float] = {}

    def close(self) -> None:
        """Stop the gRPC server and close every connection."""
        self.inventory.stop()
        for orchestrator in (self.rescuer, self._without_retries):
            orchestrator.db.close()
        super().close()

    # ── processes

    def orchestrator(self, seams: Seams, budget: RetryBudget | None = None) -> Orchestrator:
        """Build another orchestrator. Its HTTP calls stay in this process unless `seams` has a transport."""
        chosen = budget or RetryBudget()
        settings = Settings(
            process=process_settings("orchestrator-service", "WARNING"),
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
            notices_at_once=8,
            qr_key=QR_KEY,
        )
        return compose(settings, replace(seams, transport=seams.transport or self.http))

    def _build_user(self) -> Flask:
        settings = UserSettings(
            process=process_settings("user-service", "WARNING"),
            database=self.databases.database_for("user"),
            smu_url=SMU,
            smu_key=SMU_KEY,
            stripe_base="http://stripe.test",
            stripe_key="sk_test_x",
            stripe_webhook_secret="whsec_x",
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(outside, "Adapter", type("ToFakeSmu", (LocalAdapter,), {"app": self.smu}))
            return build_user(settings, self.dbs["user"])

    def _build_order(self) -> Flask:
        process = process_settings("order-service", "WARNING")
        settings = OrderSettings(
            process=process, database=self.databases.database_for("order"), grace_seconds=0, sweep_seconds=60
        )
        return build_order(settings, self.dbs["order"])

    def _build_event(self) -> Flask:
        settings = EventSettings(
            process=process_settings("event-service", "WARNING"),
            database=self.databases.database_for("event"),
            inventory_http_url="http://inventory.test",
            user_service_url=USER,
        )
        return build_event(settings, self.dbs["event"], revocations=NoRevocations())

    def beat(self, orchestrator: Orchestrator) -> None:
        """Renew the lease of an orchestrator, as its heartbeat does."""
        journal, now = orchestrator.journal, time.monotonic()
        if now - self._last_beats.get(journal.instance_id, 0.0) > LEASE_SECONDS / 4:
            beat_as_if_running(orchestrator.db, journal)
            self._last_beats[journal.instance_id] = now

    def end_lease(self, orchestrator: Orchestrator) -> None:
        """End the lease of an orchestrator. Its next beat starts another one."""
        orchestrator.journal.resign()
        self._last_beats.pop(orchestrator.journal.instance_id, None)

    # ── clients

    def token(self, user_id: UUID, role: str = "customer") -> str:
        return user_token(user_id, role)

    def send_code(self, user_id: UUID) -> tuple[str, str]:
        """Send a one-time password to a user's phone, and return (sid, code)."""
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
        """Deliver a webhook of Stripe, which must get a 200."""
        answer = call(self.apps[USER], "POST", "/api/webhooks/stripe", payload, headers)
        assert answer.status == 200, answer.body

    # ── background work

    def sweep(self) -> None:
        """Run the sweepers of Inventory and Order until nothing is left."""
        self.inventory.sweep()
        while self.order_sweeper.sweep():
            pass

    def recover(self) -> None:
        """Recover all sagas in a healthy orchestrator."""
        self.beat(self.rescuer)
        while self.rescuer.recovery.tick():
            pass
        self.rescuer.completion.tick()

    def recover_without_retries(self) -> None:
        """Run one round of recovery in an orchestrator that does not retry."""
        beat_as_if_running(self._without_retries.db, self._without_retries.journal)
        self._without_retries.recovery.tick()
        self._without_retries.journal.resign()

    def parked_sagas(self) -> list[dict[str, Any]]:
        """The parked sagas, as the admin command lists them."""
        return [dict(row) for row in self.admin().list()]

    def admin(self) -> ParkedSagas:
        """The operations of the admin command."""
        return ParkedSagas(self.dbs["orchestrator"])
