"""Direct reads of the stack's databases as a superuser, to check what the services wrote."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg2.extras

from harness.runtime.stack import Stack

CONNECT_SECONDS = 5


def connect(stack: Stack, database: str) -> Any:
    """Open a superuser's connection in autocommit mode whose rows are dictionaries. The caller closes it."""
    connection = psycopg2.connect(
        stack.admin_dsn(database), cursor_factory=psycopg2.extras.RealDictCursor, connect_timeout=CONNECT_SECONDS
    )
    connection.autocommit = True
    return connection


def rows(stack: Stack, database: str, sql: str, *params: Any) -> list[dict[str, Any]]:
    """Run one statement and return all its rows."""
    with closing(connect(stack, database)) as connection, connection.cursor() as cursor:
        cursor.execute(sql, params)
        return [dict(row) for row in cursor.fetchall()] if cursor.description else []


def row(stack: Stack, database: str, sql: str, *params: Any) -> dict[str, Any] | None:
    """Run one statement and return its first row, or None."""
    return next(iter(rows(stack, database, sql, *params)), None)


def seat(stack: Stack, seat_id: str) -> dict[str, Any]:
    """Return the row of one seat, or an empty dictionary if there is none."""
    return row(stack, "seats_db", "SELECT * FROM seats WHERE seat_id = %s", seat_id) or {}


def order_status(stack: Stack, order_id: str) -> str:
    """Return the status of one order, or `none`."""
    found = row(stack, "orders_db", "SELECT status FROM orders WHERE order_id = %s", order_id)
    return str(found["status"]) if found else "none"
