"""What the in-process suites put into the services' databases and read there: people, seats, how things stand, time.

Every look and every change is one statement of its own: a suite of thousands of executions pays for each round trip.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from harness import invariants
from services.chassis import json_codec
from services.chassis.db import Database, Row
from tests.support.databases import Databases

EVENT_ID = UUID("e0e0e0e0-0000-0000-0000-000000000001")
DATABASES = ("inventory", "user", "order", "event", "orchestrator")

_NEW_USER = """
WITH account AS (
    INSERT INTO users (user_id, email, phone, password_hash, credit_balance, is_flagged, role)
    VALUES (%(id)s::uuid, %(id)s::uuid || '@example.com', %(phone)s, 'x', %(balance)s, %(flagged)s, %(role)s)
    RETURNING user_id, credit_balance)
INSERT INTO credit_entries (key, user_id, amount, kind)
SELECT 'opening:' || user_id, user_id, credit_balance, 'OPENING' FROM account RETURNING key"""
_NEW_SEAT = """
INSERT INTO seats (seat_id, event_id, row_number, seat_number, category)
VALUES (%(seat)s, %(event)s, 'T', (random() * 2000000000)::int, %(category)s) RETURNING seat_id"""
_STATUSES = """
SELECT jsonb_object_agg(id, status) AS by_id FROM (
    SELECT order_id AS id, status FROM orders WHERE order_id = ANY(%(orders)s::text[]::uuid[])
    UNION ALL SELECT transfer_id, status FROM transfers WHERE transfer_id = ANY(%(transfers)s::text[]::uuid[])) found"""
_SEATS = """
SELECT jsonb_object_agg(seat_id, jsonb_build_array(status, owner_user_id)) AS by_id
FROM seats WHERE seat_id = ANY(%(ids)s::text[]::uuid[])"""
_BALANCES = """
SELECT jsonb_object_agg(user_id, jsonb_build_array(credit_balance::text, frozen_credits::text)) AS by_id
FROM users WHERE user_id = ANY(%(ids)s::text[]::uuid[])"""
_SAGAS = """
SELECT jsonb_agg(jsonb_build_object(
    'saga_id', saga_id, 'flow', flow, 'subject', subject, 'attempt', attempt, 'status', status, 'epoch', epoch)
    ORDER BY created_at) AS journal FROM sagas"""


class Rows:
    """The five databases, each with a pool for the services of this process."""

    def __init__(self, databases: Databases) -> None:
        self.databases = databases
        self.dbs = {name: Database(databases.database_for(name)) for name in DATABASES}
        self._open: dict[str, Any] = {}

    def close(self) -> None:
        """Give every connection back."""
        for connection in self._open.values():
            connection.close()
        for db in self.dbs.values():
            db.close()

    def row(self, service: str, sql: str, **params: Any) -> Row:
        """The row of a statement that always has one, in the database of `service`."""
        found = self.dbs[service].statement(sql, **params)
        assert found is not None, sql
        return found

    def connect(self, database: str) -> Any:
        """A superuser's connection for the invariants; kept open, so closing it only ends the look."""
        if database not in self._open:
            service = next(name for name in DATABASES if self.databases.database_for(name).name == database)
            self._open[database] = self.databases.superuser(service)
        return invariants.BorrowedConnection(self._open[database])

    # ── people and seats

    def new_user(self, balance: str = "1000.00", *, flagged: bool = False, role: str = "customer") -> UUID:
        """An account with a phone of its own and an opening entry."""
        user_id, phone = uuid4(), f"+65{uuid4().int % 10**10:010d}"
        self.row("user", _NEW_USER, id=user_id, phone=phone, balance=Decimal(balance), flagged=flagged, role=role)
        return user_id

    def new_seat(self, category: str = "CAT2") -> UUID:
        """A free seat of the first event (CAT2 costs 200)."""
        seat_id = uuid4()
        self.row("inventory", _NEW_SEAT, seat=seat_id, event=EVENT_ID, category=category)
        return seat_id

    def phone(self, user_id: UUID) -> str:
        return str(self.row("user", "SELECT phone FROM users WHERE user_id = %(id)s", id=user_id)["phone"])

    # ── looking

    def seat(self, seat_id: UUID) -> dict[str, Any]:
        return dict(self.row("inventory", "SELECT * FROM seats WHERE seat_id = %(id)s", id=seat_id))

    def order_of(self, seat_id: UUID) -> dict[str, Any] | None:
        """The seat's newest order."""
        sql = "SELECT * FROM orders WHERE seat_id = %(id)s ORDER BY created_at DESC, order_id LIMIT 1"
        found = self.dbs["order"].statement(sql, id=seat_id)
        return dict(found) if found else None

    def transfer_of(self, seat_id: UUID) -> dict[str, Any] | None:
        """The seat's newest transfer."""
        sql = "SELECT * FROM transfers WHERE seat_id = %(id)s ORDER BY created_at DESC LIMIT 1"
        found = self.dbs["order"].statement(sql, id=seat_id)
        return dict(found) if found else None

    def transfer(self, transfer_id: str) -> dict[str, Any]:
        return dict(self.row("order", "SELECT * FROM transfers WHERE transfer_id = %(id)s", id=transfer_id))

    def statuses(self, orders: list[str], transfers: list[str]) -> Mapping[str, str]:
        """The status of each order and transfer by its id."""
        return dict(self.row("order", _STATUSES, orders=orders, transfers=transfers)["by_id"] or {})

    def credits(self, user_id: UUID) -> tuple[Decimal, Decimal]:
        """Spendable and frozen."""
        return self.balances([user_id])[str(user_id)]

    def owners(self, seats: Iterable[UUID]) -> Mapping[str, tuple[str, str | None]]:
        """Status and owner of each seat by its id."""
        found = self.row("inventory", _SEATS, ids=[str(seat) for seat in seats])["by_id"]
        return {seat: (status, owner) for seat, (status, owner) in found.items()}

    def balances(self, users: Iterable[UUID]) -> Mapping[str, tuple[Decimal, Decimal]]:
        """Spendable and frozen credits of each user by their id."""
        found = self.row("user", _BALANCES, ids=[str(user) for user in users])["by_id"]
        return {user: (Decimal(free), Decimal(frozen)) for user, (free, frozen) in found.items()}

    def sagas(self) -> list[dict[str, Any]]:
        """The whole journal, oldest first."""
        return list(self.row("orchestrator", _SAGAS)["journal"] or [])

    # ── moving time, making room

    def forget_otp_sends(self) -> None:
        """As if ten minutes had passed since the last code."""
        self.dbs["user"].statement("DELETE FROM otp_sends RETURNING phone")

    def forget_sagas(self) -> None:
        """Empty the journal, so that the next execution's is all there is."""
        self.dbs["orchestrator"].statement("WITH o AS (DELETE FROM outbox) DELETE FROM sagas RETURNING saga_id")

    def expire_hold(self, seat_id: UUID) -> None:
        """As if the hold's time had passed, for this seat alone: in Inventory, and in Order."""
        past = "2020-01-01T00:00:00Z"
        change = "SET {} = %(past)s WHERE seat_id = %(id)s RETURNING seat_id"
        self.dbs["inventory"].statement("UPDATE seats " + change.format("held_until"), past=past, id=seat_id)
        self.dbs["order"].statement("UPDATE orders " + change.format("expires_at"), past=past, id=seat_id)

    # ── the ledger

    def enter(self, key: str, user: UUID, amount: Decimal, kind: str) -> None:
        """Change a balance as the User service would have under `key`, which is done from then on."""
        answer = json_codec.encode({"amount": abs(amount)}).decode()
        self.row("user", _ENTRY, key=key, user=user, amount=amount, kind=kind, answer=answer)


_ENTRY = """
WITH account AS (
    UPDATE users SET credit_balance = credit_balance + %(amount)s WHERE user_id = %(user)s RETURNING credit_balance),
recorded AS (
    INSERT INTO effects (key, outcome, answer) VALUES (%(key)s, 'DONE', %(answer)s))
INSERT INTO credit_entries (key, user_id, amount, kind) SELECT %(key)s, %(user)s, %(amount)s, %(kind)s FROM account
RETURNING key"""
