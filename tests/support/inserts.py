"""What was there before a test began, written straight to the databases: accounts, and tickets that were paid for.

Every row is what the services themselves would have left, so that the invariants hold over it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import uuid4

from psycopg2.extras import execute_values

HASH = "$2b$10$FnkOOyBjJLabDamFupmc1Oax.UNTFWouyvwef.O2bh5ZTPSAbszRu"  # the seed's: password123
EVENT = "e0e0e0e0-0000-0000-0000-000000000002"
PRICE = Decimal("100.00")

_USERS = """
INSERT INTO users (user_id, email, phone, role, credit_balance, is_flagged, password_hash) VALUES %s"""
_ENTRIES = "INSERT INTO credit_entries (key, user_id, amount, kind) VALUES %s"
_CHARGES = """
INSERT INTO effects (key, outcome, answer)
SELECT key, 'DONE', jsonb_build_object('amount', amount, 'credit_balance', 0)
FROM (VALUES %s) AS charge (key, amount)"""
_ORDERS = """
INSERT INTO orders (order_id, user_id, seat_id, event_id, status, credits_charged, charge_key, otp_required,
                    expires_at, confirmed_at)
SELECT order_id::uuid, user_id::uuid, seat_id::uuid, event_id::uuid, 'CONFIRMED', price, charge_key, false,
       app_now(), app_now()
FROM (VALUES %s) AS sale (order_id, user_id, seat_id, event_id, price, charge_key)"""
_SEATS = """
UPDATE seats SET status = 'SOLD', hold_id = sale.order_id::uuid, order_id = sale.order_id::uuid,
       owner_user_id = sale.user_id::uuid, price_paid = sale.price, qr_code_hash = 'none was drawn yet',
       updated_at = statement_timestamp()
FROM (VALUES %s) AS sale (order_id, user_id, seat_id, event_id, price)
WHERE seats.seat_id = sale.seat_id::uuid AND seats.event_id = sale.event_id::uuid AND seats.status = 'AVAILABLE'"""


@dataclass(frozen=True)
class User:
    """An account with opening credits."""

    user_id: str
    phone: str
    role: str
    credits: Decimal
    is_flagged: bool

    @property
    def email(self) -> str:
        """Derived from the id, so it is unique."""
        return f"{self.user_id}@example.com"


def users(connection: Any, people: Sequence[User]) -> None:
    """Accounts, each with its opening entry."""
    rows = [(p.user_id, p.email, p.phone, p.role, p.credits, p.is_flagged, HASH) for p in people]
    entries = [(f"test:{p.user_id}:1:opening", p.user_id, p.credits, "OPENING") for p in people]
    with connection.cursor() as cursor:
        execute_values(cursor, _USERS, rows)
        execute_values(cursor, _ENTRIES, entries)


def sales(connect: Callable[[str], Any], owner: str, seats: Sequence[str], event: str = EVENT) -> list[str]:
    """Tickets: SOLD seats with CONFIRMED orders whose price came in and went out again. The orders' ids."""
    orders = [str(uuid4()) for _ in seats]
    sold = [(order, owner, seat, event, PRICE) for order, seat in zip(orders, seats, strict=True)]
    charges = [f"pay:{order}:1:deduct_credits" for order in orders]
    with closing(connect("users_db")) as users_db, users_db.cursor() as cursor:
        opening = [(f"test:{order}:1:opening", owner, PRICE, "OPENING") for order in orders]
        execute_values(cursor, _ENTRIES, opening + [(key, owner, -PRICE, "DEDUCT") for key in charges])
        execute_values(cursor, _CHARGES, [(key, PRICE) for key in charges])
    with closing(connect("orders_db")) as orders_db, orders_db.cursor() as cursor:
        execute_values(cursor, _ORDERS, [(*sale, key) for sale, key in zip(sold, charges, strict=True)])
    with closing(connect("seats_db")) as seats_db, seats_db.cursor() as cursor:
        execute_values(cursor, _SEATS, sold, page_size=len(sold))
        assert cursor.rowcount == len(seats), "a seat was not AVAILABLE"
    return orders
