"""The end of a run as the databases and the broker have it, for the users and seats of the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple


class Order(NamedTuple):
    """A row of `orders`."""

    customer: str
    seat: str
    status: str
    charged: Decimal


class Transfer(NamedTuple):
    """A row of `transfers`."""

    seat: str
    seller: str
    buyer: str
    status: str
    amount: Decimal
    frozen: Decimal


class Seat(NamedTuple):
    """A row of `seats`."""

    status: str
    owner: str | None


class Account(NamedTuple):
    """The credits of a user."""

    free: Decimal
    frozen: Decimal


class Payment(NamedTuple):
    """How often a PaymentIntent was credited, and the sum of it."""

    times: int
    amount: Decimal


@dataclass
class EndState:
    """All facts that the judge compares with the ledger."""

    orders: dict[str, Order] = field(default_factory=dict)
    transfers: dict[str, Transfer] = field(default_factory=dict)
    seats: dict[str, Seat] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    emails: dict[str, str] = field(default_factory=dict)
    payments: dict[str, Payment] = field(default_factory=dict)
    admissions: Counter[str] = field(default_factory=Counter)
    revoked: set[str] = field(default_factory=set)
    locked: set[str] = field(default_factory=set)
    records: Counter[tuple[str, str]] = field(default_factory=Counter)  # commands of staff: action and subject
    sagas: Counter[str] = field(default_factory=Counter)
    unsent_notices: int = 0
    parked_messages: int = 0
    hold_messages: set[str] = field(default_factory=set)  # the orders whose hold message was consumed or waits
    overdue_messages: set[str] = field(default_factory=set)  # those that wait although their hold has ended


_SEATS = "SELECT seat_id::text, status::text, owner_user_id::text FROM seats WHERE event_id = %s"
_ADMISSIONS = """SELECT seat_id::text, count(*)::int FROM entry_logs JOIN seats USING (seat_id)
WHERE result = 'SUCCESS' AND seats.event_id = %s GROUP BY seat_id"""
_ORDERS = """SELECT order_id::text, user_id::text, seat_id::text, status, credits_charged FROM orders
WHERE event_id = %s"""
_TRANSFERS = """SELECT transfer_id::text, t.seat_id::text, t.seller_user_id::text, t.buyer_user_id::text, t.status,
    t.credits_amount, t.credits_frozen FROM transfers t JOIN orders o USING (order_id) WHERE o.event_id = %s"""
_UNSENT = "SELECT count(*)::int AS number FROM outbox WHERE sent_at IS NULL"
_ACCOUNTS = "SELECT user_id::text, credit_balance, frozen_credits FROM users"
_LOCKED = "SELECT user_id::text FROM users WHERE locked_at IS NOT NULL"
_RECORDS = "SELECT action, subject::text FROM {} WHERE staff_id IS NOT NULL"
_PAYMENTS = "SELECT payment_intent_id, count(*)::int, sum(amount) FROM stripe_events GROUP BY payment_intent_id"


def read(rows: Callable[..., list[dict[str, Any]]], event: str) -> EndState:
    """Read all databases, of `event` only where rows name one. `rows(database, sql, *parameters)` runs a statement."""

    def table(database: str, sql: str, *parameters: str) -> dict[str, Any]:
        """The rest of each row by its first column."""
        found = (tuple(row.values()) for row in rows(database, sql, *parameters))
        return {key: rest for key, *rest in found}

    payments = table("users_db", _PAYMENTS)
    recorded = rows("users_db", _RECORDS.format("staff_commands")) + rows("sagas_db", _RECORDS.format("audit"))
    sagas = table("sagas_db", "SELECT status::text, count(*)::int FROM sagas GROUP BY status")
    return EndState(
        orders={key: Order(*rest) for key, rest in table("orders_db", _ORDERS, event).items()},
        transfers={key: Transfer(*rest) for key, rest in table("orders_db", _TRANSFERS, event).items()},
        seats={key: Seat(*rest) for key, rest in table("seats_db", _SEATS, event).items()},
        accounts={key: Account(*rest) for key, rest in table("users_db", _ACCOUNTS).items()},
        emails={key: user for key, (user,) in table("users_db", "SELECT email, user_id::text FROM users").items()},
        payments={intent: Payment(*rest) for intent, rest in payments.items()},
        admissions=Counter({seat: number for seat, (number,) in table("seats_db", _ADMISSIONS, event).items()}),
        revoked=set(table("users_db", "SELECT sid FROM revoked_logins")),
        locked=set(table("users_db", _LOCKED)),
        records=Counter((row["action"], row["subject"]) for row in recorded),
        sagas=Counter({status: number for status, (number,) in sagas.items()}),
        unsent_notices=rows("sagas_db", _UNSENT)[0]["number"],
        hold_messages=set(table("seats_db", "SELECT message_id FROM release_messages")),
    )
