"""A test client of the Order service, with real credentials and a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from services.chassis.db import Database
from services.chassis.settings import DatabaseSettings
from services.order.app import build
from services.order.settings import Settings
from tests.support.databases import LOCK_SECONDS, be_patient
from tests.support.service_settings import credential_headers, new_id, new_key, process_settings
from tests.support.waiting import wait_until

_WAITING = """
    SELECT count(*) AS waiting FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'"""


@dataclass(frozen=True)
class Reply:
    """The response to a call. `code` is the error code, or None."""

    status: int
    data: Any
    code: str | None
    body: Any
    raw: bytes
    headers: Any


class OrderService:
    """Order's calls. The orchestrator is the caller unless the docstring names another.

    A statement waits `lock_seconds` for a lock.
    """

    def __init__(self, database: DatabaseSettings, lock_seconds: float = LOCK_SECONDS) -> None:
        self.db = Database(replace(be_patient(database, lock_seconds), pool_size=24))
        self.app = build(Settings(process_settings("order-service"), database), self.db)

    def call(
        self, method: str, path: str, body: Any = None, caller: str | None = "orchestrator-service", **kwargs: Any
    ) -> Reply:
        headers = credential_headers(caller, "order-service") if caller else {}
        headers |= kwargs.pop("headers", {})
        raw = {"data": json.dumps(body), "content_type": "application/json"} if body is not None else {}
        response = self.app.test_client().open(path, method=method, headers=headers, **{**raw, **kwargs})
        parsed = response.get_json()
        code = parsed.get("error_code")
        return Reply(response.status_code, parsed.get("data"), code, parsed, response.data, response.headers)

    @contextmanager
    def keep_locked(self, table: str, row_id: str, waiters: int) -> Iterator[None]:
        """Lock a row until `waiters` calls, which the block started, wait for it."""
        with self.db.transaction() as tx:
            tx.one(f"SELECT 1 FROM {table}s WHERE {table}_id = %(id)s FOR UPDATE", id=row_id)
            yield
            wait_until(lambda: self.db.read(lambda tx: tx.only(_WAITING))["waiting"] == waiters, LOCK_SECONDS - 1)

    # ── orders

    def create(self, key: str | None = None, **fields: Any) -> Reply:
        expires_at = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
        order = {"order_id": new_id(), "user_id": new_id(), "seat_id": new_id(), "event_id": new_id(), "price": 350}
        body = {
            "key": new_key("create") if key is None else key,
            **order,
            "expires_at": expires_at,
            "otp_required": False,
            **fields,
        }
        return self.call("POST", "/orders", body)

    def add_pending(self, **fields: Any) -> str:
        """Add a PENDING order and return its id."""
        reply = self.create(**fields)
        assert reply.status == 201, reply.body
        return str(reply.data["order_id"])

    def add_flagged(self, **fields: Any) -> str:
        """Add a PENDING order that needs a code and has a sid."""
        order_id = self.add_pending(otp_required=True, **fields)
        assert self.change(order_id, verification_sid="VE1").status == 200
        return order_id

    def add_confirmed(self, **fields: Any) -> str:
        """Add a CONFIRMED order."""
        order_id = self.add_pending(**fields)
        assert self.confirm(order_id).status == 200
        return order_id

    def change(self, order_id: str, key: str | None = None, **fields: Any) -> Reply:
        return self.call("PATCH", f"/orders/{order_id}", {"key": key or new_key("change"), **fields})

    def confirm(self, order_id: str, key: str | None = None) -> Reply:
        return self.change(order_id, key, status="CONFIRMED", charge_key="pay:1:deduct")

    def fail(self, order_id: str, key: str | None = None) -> Reply:
        return self.change(order_id, key, status="FAILED")

    def refund(self, order_id: str, key: str | None = None) -> Reply:
        return self.change(order_id, key, status="REFUNDED")

    def expire(self, order_id: str) -> Reply:
        """Call as Inventory."""
        return self.call("POST", f"/orders/{order_id}/expire", caller="inventory-service")

    def order(self, order_id: str) -> Any:
        return self.call("GET", f"/orders/{order_id}").data

    # ── transfers

    def initiate(self, key: str | None = None, **fields: Any) -> Reply:
        ids = ("transfer_id", "seat_id", "order_id", "seller_user_id", "buyer_user_id")
        transfer = {name: new_id() for name in ids} | {"initiated_by": "SELLER", "credits_amount": 120.5}
        transfer["seller_user_id"] = self._find_owner(fields.get("order_id")) or transfer["seller_user_id"]
        return self.call("POST", "/transfers", {"key": key or new_key("create"), **transfer, **fields})

    def _find_owner(self, order_id: str | None) -> str | None:
        """The last buyer of a sale, who is the seller of its next transfer."""
        found = self.db.statement(
            """SELECT coalesce(
                (SELECT buyer_user_id FROM transfers WHERE order_id = %(id)s::text::uuid AND status = 'COMPLETED'
                ORDER BY completed_at DESC LIMIT 1),
                (SELECT user_id FROM orders WHERE order_id = %(id)s::text::uuid))::text AS owner""",
            id=order_id,
        )
        return found["owner"] if found else None

    def add_initiated(self, **fields: Any) -> str:
        """Add an INITIATED transfer and return its id."""
        reply = self.initiate(**fields)
        assert reply.status == 201, reply.body
        return str(reply.data["transfer_id"])

    def add_awaiting(self, **fields: Any) -> str:
        """Add a PENDING_OTP transfer."""
        transfer_id = self.add_initiated(**fields)
        sids = {"seller_verification_sid": "VEs", "buyer_verification_sid": "VEb"}
        assert self.change_transfer(transfer_id, status="PENDING_OTP", **sids).status == 200
        return transfer_id

    def add_half_verified(self, **fields: Any) -> str:
        """Add a PENDING_OTP transfer that the seller has verified."""
        transfer_id = self.add_awaiting(**fields)
        self.try_code(f"transfers/{transfer_id}", "approved", party="SELLER")
        return transfer_id

    def add_verified(self, **fields: Any) -> str:
        """Add a PENDING_OTP transfer that both parties have verified."""
        transfer_id = self.add_half_verified(**fields)
        self.try_code(f"transfers/{transfer_id}", "approved", party="BUYER")
        return transfer_id

    def add_completed(self, **fields: Any) -> str:
        """Add a COMPLETED transfer."""
        transfer_id = self.add_verified(**fields)
        assert self.change_transfer(transfer_id, status="COMPLETED", expected="PENDING_OTP").status == 200
        return transfer_id

    def change_transfer(self, transfer_id: str, key: str | None = None, **fields: Any) -> Reply:
        return self.call("PATCH", f"/transfers/{transfer_id}", {"key": key or new_key("change"), **fields})

    def cancel(self, transfer_id: str, key: str | None = None) -> Reply:
        return self.call("POST", f"/transfers/{transfer_id}/cancel", {"key": key or new_key("cancel")})

    def dispute(self, transfer_id: str, key: str | None = None, reason: str = "not me", **fields: Any) -> Reply:
        body = {"key": key or new_key("dispute"), "reason": reason, **fields}
        return self.call("POST", f"/transfers/{transfer_id}/dispute", body)

    def transfer(self, transfer_id: str) -> Any:
        return self.call("GET", f"/transfers/{transfer_id}").data

    # ── codes. `subject` is orders/{id} or transfers/{id}. A party enters its own code unless `caller_id` is given

    def take(self, subject: str, key: str | None = None, **party: str) -> Reply:
        return self.call("POST", f"/{subject}/otp-attempts", {"key": key or new_key("take"), **party})

    def end(self, subject: str, key: str, outcome: str, **party: str) -> Reply:
        return self.call("PATCH", f"/{subject}/otp-attempts", {"key": key, "outcome": outcome, **party})

    def try_code(self, subject: str, outcome: str, **party: str) -> Reply:
        """Take an attempt and store its outcome."""
        key = new_key("take")
        taken = self.take(subject, key, **party)
        return self.end(subject, key, outcome, **party) if taken.status == 200 else taken
