"""The User service in this process, on the embedded PostgreSQL, and verbs to use it with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from flask import Flask
from werkzeug.test import TestResponse

from services.chassis import json_codec, tokens
from services.chassis.db import Database
from services.chassis.settings import DatabaseSettings, ProcessSettings
from services.user.app import build
from services.user.settings import Settings
from tests.support.waiting import wait_until

JWT_SECRET = "test-jwt-secret-test-jwt-secret-test"
INTERNAL_SECRET = "test-internal-secret-test-internal-secret"
SMU_URL = "http://smu.test"
SMU_KEY = "smu-key-that-no-log-shows"
STRIPE_BASE = "http://stripe.test"
STRIPE_KEY = "sk_test_that_no_log_shows"
WEBHOOK_SECRET = "whsec_that_no_log_shows"

_NEW_USER = """
INSERT INTO users (user_id, email, phone, password_hash, credit_balance)
VALUES (%(user_id)s, %(user_id)s || '@example.com', %(phone)s, 'no password', %(balance)s)"""
_OPENING = """
INSERT INTO credit_entries (key, user_id, amount, kind)
VALUES ('test:' || %(user_id)s || ':1:opening', %(user_id)s, %(balance)s, 'OPENING')"""
_CROOKED = """
SELECT user_id FROM users
WHERE credit_balance <> (SELECT coalesce(sum(amount), 0) FROM credit_entries e WHERE e.user_id = users.user_id)
   OR frozen_credits <> (SELECT coalesce(sum(amount), 0) FROM credit_holds h WHERE h.user_id = users.user_id)"""
_WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def user_settings(database: DatabaseSettings, **addresses: str) -> Settings:
    """Settings of a User service; `smu_url` and `stripe_base` lead to stubs unless given."""
    process = ProcessSettings("user-service", 5000, "127.0.0.1", JWT_SECRET, INTERNAL_SECRET, "INFO", 8)
    where = {"smu_url": SMU_URL, "stripe_base": STRIPE_BASE} | addresses
    return Settings(
        process=process,
        database=database,
        smu_key=SMU_KEY,
        stripe_key=STRIPE_KEY,
        stripe_webhook_secret=WEBHOOK_SECRET,
        **where,
    )


class UserApp:
    """One User service under test. Its locks are waited for longer than in production: the machine may be busy."""

    def __init__(self, settings: Settings) -> None:
        self.db = Database(replace(settings.database, lock_timeout_ms=10_000, statement_timeout_ms=20_000))
        self.app: Flask = build(settings, self.db)

    def call(
        self, method: str, path: str, body: Any = None, *, caller: str = "orchestrator-service", **headers: str
    ) -> TestResponse:
        """An internal call; `body` is sent as JSON, or as it is when it is bytes."""
        credential = tokens.Credential(caller, INTERNAL_SECRET).header()
        return self.public(method, path, body, **{"Authorization": credential, **headers})

    def public(self, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        """A call from outside, with no credential but what `headers` has."""
        raw = body if isinstance(body, bytes) or body is None else json_codec.encode(body)
        return self.app.test_client().open(
            path, method=method, data=raw, headers=headers, content_type=None if raw is None else "application/json"
        )

    def done(self, path: str, **body: Any) -> Any:
        """The data of a POST that succeeds."""
        answer = self.call("POST", path, body)
        assert answer.status_code == 200, answer.text
        return json_codec.decode(answer.data)["data"]

    def refused(self, path: str, **body: Any) -> str:
        """The code of a POST that is refused."""
        return str(refusal(self.call("POST", path, body)))

    def new_user(self, balance: str = "100.00", user_id: UUID | None = None) -> UUID:
        """A customer with a phone of his own and `balance` credits."""
        chosen = user_id or uuid4()
        with self.db.transaction() as tx:
            phone = f"+65{uuid4().int % 10**10:010d}"
            tx.run(_NEW_USER, user_id=chosen, phone=phone, balance=Decimal(balance))
            tx.run(_OPENING, user_id=chosen, balance=Decimal(balance))
        return chosen

    def account(self, user_id: UUID) -> Any:
        """The profile."""
        return json_codec.decode(self.call("GET", f"/users/{user_id}").data)["data"]

    def balance(self, user_id: UUID) -> Any:
        """Spendable credits, a Decimal."""
        return self.account(user_id)["credit_balance"]

    def frozen(self, user_id: UUID) -> Any:
        """Frozen credits, a Decimal."""
        return self.account(user_id)["frozen_credits"]

    def crooked_accounts(self) -> list[Any]:
        """Those whose balance is not the sum of their entries, or frozen not the sum of holds (invariant I2)."""
        return self.db.read(lambda tx: tx.all(_CROOKED))

    def waiting(self) -> int:
        """How many statements wait for a lock."""
        return len(self.db.read(lambda tx: tx.all(_WAITING)))

    def queued(self, user_id: UUID, *works: Callable[[], Any]) -> list[Any]:
        """Run all works so that they meet at the user's row: none gets it before all of them want it."""
        with ThreadPoolExecutor(len(works)) as pool:
            with self.db.transaction() as tx:
                tx.run("SELECT 1 FROM users WHERE user_id = %(user_id)s FOR UPDATE", user_id=user_id)
                running = [pool.submit(work) for work in works]
                wait_until(lambda: self.waiting() == len(works))
            return [work.result() for work in running]


def refusal(answer: TestResponse) -> str:
    """The error code in an envelope that has all that an error envelope has."""
    envelope = answer.get_json()
    assert envelope["success"] is False
    assert envelope["message"]
    assert UUID(envelope["correlation_id"])
    return str(envelope["error_code"])


def key(step: str = "deduct") -> str:
    """An effect's key that no other test has."""
    return f"test:{uuid4()}:1:{step}"


def codes(answers: Iterable[TestResponse]) -> list[int]:
    """The statuses of answers, sorted."""
    return sorted(answer.status_code for answer in answers)
