"""Inserts users, seats, credits and sales into the databases, as finished requests would have left them.

The rows satisfy every invariant. All suites use these functions: the tests of the running system, the crash tests and
the system in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from psycopg2.extras import execute_values

Connect = Callable[[str], Any]
"""Opens a connection as superuser, in autocommit mode, to the database of that name."""

HASH = "$2b$10$FnkOOyBjJLabDamFupmc1Oax.UNTFWouyvwef.O2bh5ZTPSAbszRu"  # of password123, as in the seed
EVENT = "e0e0e0e0-0000-0000-0000-000000000002"
PRICE = Decimal("100.00")

_USERS = """
WITH account AS (
    INSERT INTO users (user_id, email, phone, role, credit_balance, is_flagged, password_hash) VALUES %s
    RETURNING user_id, credit_balance)
INSERT INTO credit_entries (key, user_id, amount, kind)
SELECT 'test:' || user_id || ':1:opening', user_id, credit_balance, 'OPENING' FROM account"""
_LOGIN = """
INSERT INTO logins (sid, user_id, refresh_id, device, expires_at)
VALUES (%s, %s, %s, 'a test', now() + interval '7 days')"""
_SEATS = "INSERT INTO seats (seat_id, event_id, row_number, seat_number, category) VALUES %s"
_EVENT = """
INSERT INTO events (event_id, name, venue_id, hall_id, event_date, total_seats, pricing_tiers)
SELECT gen_random_uuid(), 'An Event', venue_id, %s, app_now() + make_interval(secs => %s), %s,
    jsonb_build_object('CAT1', %s)
FROM venues LIMIT 1 RETURNING event_id::text AS event_id"""
_CHANGES = """
WITH change AS (
    SELECT key, user_id::uuid, amount, kind FROM (VALUES %s) AS given (key, user_id, amount, kind)),
account AS (
    UPDATE users SET credit_balance = credit_balance + total.amount
    FROM (SELECT user_id, sum(amount) AS amount FROM change GROUP BY user_id) AS total
    WHERE users.user_id = total.user_id RETURNING users.user_id, credit_balance),
effect AS (
    INSERT INTO effects (key, outcome, answer)
    SELECT key, 'DONE', jsonb_build_object('amount', abs(amount), 'credit_balance', credit_balance)
    FROM change JOIN account USING (user_id))
INSERT INTO credit_entries (key, user_id, amount, kind)
SELECT key, user_id, amount, kind FROM change"""
_ORDERS = """
INSERT INTO orders (order_id, user_id, seat_id, event_id, status, credits_charged, charge_key, otp_required,
                    expires_at, confirmed_at)
SELECT order_id::uuid, user_id::uuid, seat_id::uuid, event_id::uuid, 'CONFIRMED', price, charge_key, false,
       app_now(), app_now()
FROM (VALUES %s) AS sale (order_id, user_id, seat_id, event_id, price, charge_key)"""
_SOLD_SEATS = """
UPDATE seats SET status = 'SOLD', hold_id = sale.order_id::uuid, order_id = sale.order_id::uuid,
       owner_user_id = sale.user_id::uuid, price_paid = sale.price, qr_code_hash = 'no QR yet',
       updated_at = statement_timestamp()
FROM (VALUES %s) AS sale (order_id, user_id, seat_id, event_id, price)
WHERE seats.seat_id = sale.seat_id::uuid AND seats.event_id = sale.event_id::uuid AND seats.status = 'AVAILABLE'"""


def _unique_phone() -> str:
    return f"+65{uuid4().int % 10**10:010d}"  # not from `random`, which Hypothesis seeds, so that values would repeat


@dataclass(frozen=True)
class User:
    """An account with an opening balance."""

    role: str = "customer"
    credits: Decimal = Decimal("1000.00")
    is_flagged: bool = False
    user_id: str = field(default_factory=lambda: str(uuid4()))
    phone: str = field(default_factory=_unique_phone)

    @property
    def email(self) -> str:
        """Derived from the id, so it is unique."""
        return f"{self.user_id}@example.com"


class Change(NamedTuple):
    """A change of one user's credits under an idempotency key, such as a DEDUCT of a negative amount."""

    key: str
    user_id: str
    amount: Decimal
    kind: str


def users(connection: Any, rows: Sequence[User]) -> None:
    """Insert accounts, each with its opening entry. `connection` leads to users_db."""
    values = [(u.user_id, u.email, u.phone, u.role, u.credits, u.is_flagged, HASH) for u in rows]
    with connection.cursor() as cursor:
        execute_values(cursor, _USERS, values)


def seats(connection: Any, number: int, category: str, event: str) -> list[str]:
    """Insert AVAILABLE seats and return their ids. `connection` leads to seats_db."""
    ids = [str(uuid4()) for _ in range(number)]
    rows = [(seat, event, seat[:4], UUID(seat).int % 10**9, category) for seat in ids]
    with connection.cursor() as cursor:
        execute_values(cursor, _SEATS, rows)
    return ids


def event(connection: Any, seats: int, begins_in_hours: float, hall: str, price: Decimal = PRICE) -> str:
    """Insert an event and return its id. `connection` leads to events_db, and its rows are dictionaries."""
    with connection.cursor() as cursor:
        cursor.execute(_EVENT, (hall, begins_in_hours * 3600, seats, price))
        return str(cursor.fetchone()["event_id"])


def changes(connection: Any, rows: Sequence[Change]) -> None:
    """Change balances with their entries and effects, as User does. `connection` leads to users_db."""
    with connection.cursor() as cursor:
        execute_values(cursor, _CHANGES, rows, page_size=len(rows))


def opening(user_id: str, amount: Decimal) -> Change:
    """A change of the opening balance. A negative amount takes credits away."""
    return Change(f"test:{uuid4()}:1:opening", user_id, amount, "OPENING")


def sales(
    connect: Connect, owner: str, seat_ids: Sequence[str], event: str = EVENT, price: Decimal = PRICE
) -> list[str]:
    """Sell AVAILABLE seats to a user and charge the price of each. Returns the ids of the CONFIRMED orders."""
    orders = [str(uuid4()) for _ in seat_ids]
    rows = [(order, owner, seat, event, price) for order, seat in zip(orders, seat_ids, strict=True)]
    charges = [Change(f"pay:{order}:1:deduct_credits", owner, -price, "DEDUCT") for order in orders]
    with closing(connect("users_db")) as users_db:
        changes(users_db, charges)
    with closing(connect("orders_db")) as orders_db, orders_db.cursor() as cursor:
        execute_values(cursor, _ORDERS, [(*row, charge.key) for row, charge in zip(rows, charges, strict=True)])
    with closing(connect("seats_db")) as seats_db, seats_db.cursor() as cursor:
        execute_values(cursor, _SOLD_SEATS, rows, page_size=len(rows))
        assert cursor.rowcount == len(rows), "a seat was not AVAILABLE"
    return orders


def free_sales(connect: Connect, owner: str, seat_ids: Sequence[str], event: str = EVENT) -> list[str]:
    """Like `sales`, but the user also gets the credits for them, so the balance stays the same."""
    with closing(connect("users_db")) as users_db:
        changes(users_db, [opening(owner, PRICE * len(seat_ids))])
    return sales(connect, owner, seat_ids, event)


def login(connection: Any, user_id: str) -> dict[str, str]:
    """Insert a login and return the claims `sid` and `jti` of its refresh token."""
    sid, token_id = str(uuid4()), str(uuid4())
    with connection.cursor() as cursor:
        cursor.execute(_LOGIN, (sid, user_id, token_id))
    connection.commit()
    return {"sid": sid, "jti": token_id}
