"""A test client of the User service, in this process and on the embedded PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from flask import Flask
from werkzeug.test import TestResponse

from services.chassis import json_codec
from services.chassis.db import Database
from services.chassis.settings import DatabaseSettings
from services.user.app import build
from services.user.settings import Settings
from tests.support.databases import be_patient
from tests.support.service_settings import credential_headers, process_settings
from tests.support.waiting import wait_until

SMU_URL = "http://smu.test"
SMU_KEY = "smu-key-that-no-log-shows"
STRIPE_BASE = "http://stripe.test"
STRIPE_KEY = "sk_test_that_no_log_shows"
WEBHOOK_SECRET = "whsec_that_no_log_shows"
HASH_KEY = "a-hash-key-that-no-log-shows-at-all-"

_NEW_USER = """
INSERT INTO users (user_id, email, phone, password_hash, credit_balance)
VALUES (%(user_id)s, %(user_id)s || '@example.com', %(phone)s, 'no password', %(balance)s)"""
_OPENING = """
INSERT INTO credit_entries (key, user_id, amount, kind)
VALUES ('test:' || %(user_id)s || ':1:opening', %(user_id)s, %(balance)s, 'OPENING')"""
_UNBALANCED = """
SELECT user_id FROM users
WHERE credit_balance <> (SELECT coalesce(sum(amount), 0) FROM credit_entries e WHERE e.user_id = users.user_id)
   OR frozen_credits <> (SELECT coalesce(sum(amount), 0) FROM credit_holds h WHERE h.user_id = users.user_id)"""
_WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def user_settings(database: DatabaseSettings, **addresses: str) -> Settings:
    """Settings of a User service. `smu_url` and `stripe_base` lead to stubs unless `addresses` has them."""
    urls = {"smu_url": SMU_URL, "stripe_base": STRIPE_BASE} | addresses
    return Settings(
        process=process_settings("user-service"),
        database=database,
        smu_key=SMU_KEY,
        stripe_key=STRIPE_KEY,
        stripe_webhook_secret=WEBHOOK_SECRET,
        hash_key=HASH_KEY,
        smu_url=urls["smu_url"],
        stripe_base=urls["stripe_base"],
    )


class UserApp:
    """The User service under test. Its lock timeout is longer than in production, because the machine may be busy."""

    def __init__(self, settings: Settings) -> None:
        self.db = Database(be_patient(settings.database))
        self.app: Flask = build(settings, self.db)

    def call(
        self, method: str, path: str, body: Any = None, *, caller: str = "orchestrator-service", **headers: str
    ) -> TestResponse:
        """Call as a service. `body` is sent as JSON, or unchanged if it is bytes."""
        return self.call_public(method, path, body, **{**credential_headers(caller, "user-service"), **headers})

    def call_public(self, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        """Call without a service credential."""
        raw = body if isinstance(body, bytes) or body is None else json_codec.encode(body)
        return self.app.test_client().open(
            path, method=method, data=raw, headers=headers, content_type=None if raw is None else "application/json"
        )

    def post(self, path: str, **body: Any) -> Any:
        """POST, assert success and return the data."""
        answer = self.call("POST", path, body)
        assert answer.status_code == 200, answer.text
        return json_codec.decode(answer.data)["data"]

    def expect_refusal(self, path: str, **body: Any) -> str:
        """POST, assert a refusal and return its error code."""
        return str(error_code(self.call("POST", path, body)))

    def new_user(self, balance: str = "100.00", user_id: UUID | None = None) -> UUID:
        """Add a customer with a unique phone and `balance` credits."""
        user_id = user_id or uuid4()
        with self.db.transaction() as tx:
            phone = f"+65{uuid4().int % 10**10:010d}"
            tx.run(_NEW_USER, user_id=user_id, phone=phone, balance=Decimal(balance))
            tx.run(_OPENING, user_id=user_id, balance=Decimal(balance))
        return user_id

    def account(self, user_id: UUID) -> Any:
        """Return the profile."""
        return json_codec.decode(self.call("GET", f"/users/{user_id}").data)["data"]

    def balance(self, user_id: UUID) -> Any:
        """Return the spendable credits, a Decimal."""
        return self.account(user_id)["credit_balance"]

    def frozen_credits(self, user_id: UUID) -> Any:
        """Return the frozen credits, a Decimal."""
        return self.account(user_id)["frozen_credits"]

    def find_unbalanced_accounts(self) -> list[Any]:
        """Find accounts whose balance or frozen credits differ from the sum of entries or holds (invariant I2)."""
        return self.db.read(lambda tx: tx.all(_UNBALANCED))

    def count_waiting(self) -> int:
        """Count the statements that wait for a lock."""
        return len(self.db.read(lambda tx: tx.all(_WAITING)))

    def run_at_locked_row(self, user_id: UUID, *calls: Callable[[], Any]) -> list[Any]:
        """Lock the user's row until all calls wait for it, and return their results."""
        with ThreadPoolExecutor(len(calls)) as pool:
            with self.db.transaction() as tx:
                tx.run("SELECT 1 FROM users WHERE user_id = %(user_id)s FOR UPDATE", user_id=user_id)
                running = [pool.submit(call) for call in calls]
                wait_until(lambda: self.count_waiting() == len(calls))
            return [call.result() for call in running]


def error_code(answer: TestResponse) -> str:
    """Return the error code of a complete error envelope."""
    envelope = answer.get_json()
    assert envelope["success"] is False
    assert envelope["message"]
    assert UUID(envelope["correlation_id"])
    return str(envelope["error_code"])


def status_codes(answers: Iterable[TestResponse]) -> list[int]:
    """Return the HTTP statuses, sorted."""
    return sorted(answer.status_code for answer in answers)
