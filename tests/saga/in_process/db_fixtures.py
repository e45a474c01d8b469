"""The databases of the in-process system: inserts users and seats, reads the state, and moves time.

Each method is one statement where possible, because the suite runs thousands of executions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from harness import invariants
from services.chassis.db import Database, Row
from services.chassis.settings import DatabaseSettings
from tests.support import inserts
from tests.support.databases import Databases

EVENT_ID = UUID("e0e0e0e0-0000-0000-0000-000000000001")
LONGEST_STOP_MS = 30_000  # of an actor that the scheduler stops inside a transaction, on a busy machine
DATABASES = ("inventory", "user", "order", "event", "orchestrator")

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


def _open(settings: DatabaseSettings) -> Database:
    return Database(replace(settings, statement_timeout_ms=LONGEST_STOP_MS))


class SystemDatabases:
    """The five databases, each with a connection pool for the services of this process."""

    def __init__(self, databases: Databases) -> None:
        self.databases = databases
        self.dbs = {name: _open(databases.database_for(name)) for name in DATABASES}
        self._open: dict[str, Any] = {}

    def close(self) -> None:
        """Close every connection."""
        for connection in self._open.values():
            connection.close()
        for db in self.dbs.values():
            db.close()

    def row(self, service: str, sql: str, **params: Any) -> Row:
        """Run a statement that returns a row, in the database of `service`."""
        found = self.dbs[service].statement(sql, **params)
        assert found is not None, f"no row: {sql}"
        return found

    def connect(self, database: str) -> Any:
        """A superuser's connection to `seats_db`, `users_db`, …. It stays open, even if the caller closes it."""
        if database not in self._open:
            service = next(name for name in DATABASES if self.databases.database_for(name).name == database)
            self._open[database] = self.databases.superuser(service)
        return invariants.BorrowedConnection(self._open[database])

    # ── users and seats

    def new_user(self, balance: str = "1000.00", *, flagged: bool = False, role: str = "customer") -> UUID:
        """Insert an account with a phone of its own and an opening entry."""
        user = inserts.User(role, Decimal(balance), flagged)
        inserts.users(self.connect("users_db"), [user])
        return UUID(user.user_id)

    def new_seat(self, category: str = "CAT2") -> UUID:
        """Insert an AVAILABLE seat of the first event (CAT2 costs 200)."""
        [seat] = inserts.seats(self.connect("seats_db"), 1, category, str(EVENT_ID))
        return UUID(seat)

    def phone(self, user_id: UUID) -> str:
        """The phone number of a user."""
        return str(self.row("user", "SELECT phone FROM users WHERE user_id = %(id)s", id=user_id)["phone"])

    # ── reads

    def seat(self, seat_id: UUID) -> dict[str, Any]:
        """The row of a seat."""
        return dict(self.row("inventory", "SELECT * FROM seats WHERE seat_id = %(id)s", id=seat_id))

    def order_of(self, seat_id: UUID) -> dict[str, Any] | None:
        """The newest order of a seat."""
        return self._find_newest("orders", seat_id)

    def transfer_of(self, seat_id: UUID) -> dict[str, Any] | None:
        """The newest transfer of a seat."""
        return self._find_newest("transfers", seat_id)

    def _find_newest(self, table: str, seat_id: UUID) -> dict[str, Any] | None:
        sql = f"SELECT * FROM {table} WHERE seat_id = %(id)s ORDER BY created_at DESC LIMIT 1"
        found = self.dbs["order"].statement(sql, id=seat_id)
        return dict(found) if found else None

    def transfer(self, transfer_id: str) -> dict[str, Any]:
        """The row of a transfer."""
        return dict(self.row("order", "SELECT * FROM transfers WHERE transfer_id = %(id)s", id=transfer_id))

    def statuses(self, orders: list[str], transfers: list[str]) -> Mapping[str, str]:
        """The status of each order and transfer by its id."""
        return dict(self.row("order", _STATUSES, orders=orders, transfers=transfers)["by_id"] or {})

    def credits(self, user_id: UUID) -> tuple[Decimal, Decimal]:
        """Spendable and frozen credits."""
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
        """All sagas of the journal, oldest first."""
        return list(self.row("orchestrator", _SAGAS)["journal"] or [])

    # ── time and clean-up

    def delete_counted_events(self) -> None:
        """Reset the limits of codes and of refused buyers, as if a day had passed."""
        for service in ("user", "order"):
            self.dbs[service].statement("DELETE FROM counted_events RETURNING key")

    def delete_sagas(self) -> None:
        """Empty the journal, so that it only holds the sagas of the next execution."""
        self.dbs["orchestrator"].statement("WITH o AS (DELETE FROM outbox) DELETE FROM sagas RETURNING saga_id")

    def expire_hold(self, seat_id: UUID) -> None:
        """Let the hold of one seat expire, both in Inventory and in Order."""
        past = "2020-01-01T00:00:00Z"
        change = "SET {} = %(past)s WHERE seat_id = %(id)s RETURNING seat_id"
        self.dbs["inventory"].statement("UPDATE seats " + change.format("held_until"), past=past, id=seat_id)
        self.dbs["order"].statement("UPDATE orders " + change.format("expires_at"), past=past, id=seat_id)

    def change_balance(self, user_id: UUID, amount: Decimal, kind: str, key: str) -> None:
        """Change a balance under an idempotency key, with the entry and the effect that User would write."""
        inserts.changes(self.connect("users_db"), [inserts.Change(key, str(user_id), amount, kind)])
