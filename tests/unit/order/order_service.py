"""The Order service over its test client, spoken to in verbs; with real credentials and a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from services.chassis.db import Database
from services.chassis.settings import DatabaseSettings, ProcessSettings
from services.chassis.tokens import Credential
from services.order.app import build
from services.order.settings import Settings
from tests.support.waiting import wait_until

_WAITING = """
    SELECT count(*) AS waiting FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'"""
SECRET, INTERNAL_SECRET = "s" * 32, "i" * 32


def process(service: str) -> ProcessSettings:
    """Settings of a process that listens nowhere."""
    return ProcessSettings(service, 1, "127.0.0.1", SECRET, INTERNAL_SECRET, "INFO", 4)


@dataclass(frozen=True)
class Reply:
    """What came back. `code` is the refusal's, or None."""

    status: int
    data: Any
    code: str | None
    body: Any
    raw: bytes
    headers: Any


def an_id() -> str:
    return str(uuid4())


def a_key(step: str = "step") -> str:
    return f"test:{uuid4()}:1:{step}"


class OrderService:
    """Order's calls. Each method is one call by the orchestrator unless it says otherwise."""

    def __init__(self, database: DatabaseSettings, lock_timeout_ms: int = 1000) -> None:
        self.db = Database(replace(database, pool_size=24, lock_timeout_ms=lock_timeout_ms))
        self.app = build(Settings(process("order-service"), database), self.db)

    def ask(
        self, method: str, path: str, body: Any = None, caller: str | None = "orchestrator-service", **kwargs: Any
    ) -> Reply:
        headers = {"Authorization": Credential(caller, INTERNAL_SECRET).header()} if caller else {}
        headers |= kwargs.pop("headers", {})
        raw = {"data": json.dumps(body), "content_type": "application/json"} if body is not None else {}
        answer = self.app.test_client().open(path, method=method, headers=headers, **{**raw, **kwargs})
        parsed = answer.get_json()
        code = parsed.get("error_code")
        return Reply(answer.status_code, parsed.get("data"), code, parsed, answer.data, answer.headers)

    @contextmanager
    def held_back(self, table: str, row_id: str, waiters: int) -> Iterator[None]:
        """Keep a row locked until `waiters` calls, started in the block, wait for it; so that they meet there."""
        with self.db.transaction() as tx:
            tx.one(f"SELECT 1 FROM {table}s WHERE {table}_id = %(id)s FOR UPDATE", id=row_id)
            yield
            wait_until(lambda: self.db.read(lambda look: look.only(_WAITING))["waiting"] == waiters, seconds=3)

    # ── orders

    def create(self, key: str | None = None, **fields: Any) -> Reply:
        expires_at = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
        order = {"order_id": an_id(), "user_id": an_id(), "seat_id": an_id(), "event_id": an_id(), "price": 350}
        body = {
            "key": a_key("create") if key is None else key,
            **order,
            "expires_at": expires_at,
            "otp_required": False,
            **fields,
        }
        return self.ask("POST", "/orders", body)

    def pending(self, **fields: Any) -> str:
        """A fresh PENDING order's id."""
        reply = self.create(**fields)
        assert reply.status == 201, reply.body
        return str(reply.data["order_id"])

    def flagged(self, **fields: Any) -> str:
        """A PENDING order that wants a code, with a sid."""
        order_id = self.pending(otp_required=True, **fields)
        assert self.change(order_id, verification_sid="VE1").status == 200
        return order_id

    def confirmed(self, **fields: Any) -> str:
        """A CONFIRMED order's id."""
        order_id = self.pending(**fields)
        assert self.confirm(order_id).status == 200
        return order_id

    def change(self, order_id: str, key: str | None = None, **fields: Any) -> Reply:
        return self.ask("PATCH", f"/orders/{order_id}", {"key": key or a_key("change"), **fields})

    def confirm(self, order_id: str, key: str | None = None) -> Reply:
        return self.change(order_id, key, status="CONFIRMED", charge_key="pay:1:deduct")

    def fail(self, order_id: str, key: str | None = None) -> Reply:
        return self.change(order_id, key, status="FAILED")

    def refund(self, order_id: str, key: str | None = None) -> Reply:
        return self.change(order_id, key, status="REFUNDED")

    def expire(self, order_id: str) -> Reply:
        """Inventory's call."""
        return self.ask("POST", f"/orders/{order_id}/expire", caller="inventory-service")

    def order(self, order_id: str) -> Any:
        return self.ask("GET", f"/orders/{order_id}").data

    # ── transfers

    def initiate(self, key: str | None = None, **fields: Any) -> Reply:
        ids = ("transfer_id", "seat_id", "order_id", "seller_user_id", "buyer_user_id")
        transfer = {name: an_id() for name in ids} | {"initiated_by": "SELLER", "credits_amount": 120.5}
        return self.ask("POST", "/transfers", {"key": key or a_key("create"), **transfer, **fields})

    def initiated(self, **fields: Any) -> str:
        """A fresh INITIATED transfer's id."""
        reply = self.initiate(**fields)
        assert reply.status == 201, reply.body
        return str(reply.data["transfer_id"])

    def awaiting(self, **fields: Any) -> str:
        """A PENDING_OTP transfer's id."""
        transfer_id = self.initiated(**fields)
        sids = {"seller_verification_sid": "VEs", "buyer_verification_sid": "VEb"}
        assert self.change_transfer(transfer_id, status="PENDING_OTP", **sids).status == 200
        return transfer_id

    def verified(self, **fields: Any) -> str:
        """A PENDING_OTP transfer that both parties have verified."""
        transfer_id = self.awaiting(**fields)
        for party in ("SELLER", "BUYER"):
            self.try_code(f"transfers/{transfer_id}", "approved", party=party)
        return transfer_id

    def completed(self, **fields: Any) -> str:
        """A COMPLETED transfer's id."""
        transfer_id = self.verified(**fields)
        assert self.change_transfer(transfer_id, status="COMPLETED", expected="PENDING_OTP").status == 200
        return transfer_id

    def change_transfer(self, transfer_id: str, key: str | None = None, **fields: Any) -> Reply:
        return self.ask("PATCH", f"/transfers/{transfer_id}", {"key": key or a_key("change"), **fields})

    def cancel(self, transfer_id: str, key: str | None = None) -> Reply:
        return self.ask("POST", f"/transfers/{transfer_id}/cancel", {"key": key or a_key("cancel")})

    def dispute(self, transfer_id: str, key: str | None = None, reason: str = "not me") -> Reply:
        return self.ask("POST", f"/transfers/{transfer_id}/dispute", {"key": key or a_key("dispute"), "reason": reason})

    def transfer(self, transfer_id: str) -> Any:
        return self.ask("GET", f"/transfers/{transfer_id}").data

    # ── codes. `of` is orders/{id} or transfers/{id}

    def take(self, of: str, key: str | None = None, **party: str) -> Reply:
        return self.ask("POST", f"/{of}/otp-attempts", {"key": key or a_key("take"), **party})

    def end(self, of: str, key: str, outcome: str, **party: str) -> Reply:
        return self.ask("PATCH", f"/{of}/otp-attempts", {"key": key, "outcome": outcome, **party})

    def try_code(self, of: str, outcome: str, **party: str) -> Reply:
        """Take an attempt and end it."""
        key = a_key("take")
        taken = self.take(of, key, **party)
        return self.end(of, key, outcome, **party) if taken.status == 200 else taken
