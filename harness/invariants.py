"""What must hold across all databases, whatever happened: checked after every scenario and at the end of every load.

    assert_hold(connections)                     at quiescence: no saga is live, every grace has passed
    assert_hold(connections, at_any_time=True)   while things run: only the invariants that one database decides

`connections` opens a superuser's connection to the database of that name ("seats_db", "users_db", …).
Each check returns what it found wrong, one line a finding; an empty list is a proof for this moment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg2.extensions

from harness import invariant_counter

Connect = Callable[[str], Any]
Rows = list[dict[str, Any]]
TUPLES = psycopg2.extensions.cursor

GRACE_SECONDS = 60  # past a hold's or order's time until the sweepers must have settled it
OPEN = ("INITIATED", "PENDING_OTP")
TOOK_EFFECT = ("COMPLETED", "DISPUTED")
TABLES: dict[str, dict[str, str | None]] = {  # database: its tables, each with the column that a scope goes by
    "seats_db": {"seats": "seat_id", "entry_logs": "seat_id"},
    "users_db": dict.fromkeys(("users", "credit_entries", "credit_holds", "stripe_events"), "user_id"),
    "orders_db": {"orders": "seat_id", "transfers": "seat_id"},
    "sagas_db": {"sagas": None, "outbox": None},
}


@dataclass(frozen=True)
class Scope:
    """Look at these seats and users alone, and at every saga: for suites that run many small worlds in one database."""

    seats: Sequence[UUID]
    users: Sequence[UUID]

    def ids(self, column: str) -> list[UUID]:
        """The ids that a table's column may have."""
        return list(self.seats if column == "seat_id" else self.users)


@dataclass(frozen=True)
class BorrowedConnection:
    """A connection that stays open when a look is over."""

    connection: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def close(self) -> None:
        """The look is over, the connection is not."""


@dataclass
class Snapshot:
    """All rows of all databases, with each database's own clock."""

    rows: dict[str, Rows] = field(default_factory=dict)
    now: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, table: str) -> Rows:
        return self.rows[table]


def read(connect: Connect, scope: Scope | None = None) -> Snapshot:
    """Read everything, or what is in `scope`, each database in one repeatable-read transaction."""
    snapshot = Snapshot()
    for database, tables in TABLES.items():
        with closing(connect(database)) as connection, connection.cursor(cursor_factory=TUPLES) as cursor:
            snapshot.now[database] = _begin(connection, cursor)
            try:
                for table, column in tables.items():
                    snapshot.rows[table] = _rows(cursor, table, column, scope)
            finally:
                cursor.execute("ROLLBACK")
    return snapshot


def _begin(connection: Any, cursor: Any) -> Any:
    """The database's own time; the transaction begins in the same round trip."""
    connection.rollback()
    connection.set_session(autocommit=True)
    cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT app_now()")
    return cursor.fetchone()[0]


def _rows(cursor: Any, table: str, column: str | None, scope: Scope | None) -> Rows:
    if scope is None or column is None:
        cursor.execute(f"SELECT * FROM {table}")
    else:
        cursor.execute(f"SELECT * FROM {table} WHERE {column} = ANY(%s)", (scope.ids(column),))
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def find_violations(
    connect: Connect, *, at_any_time: bool = False, parked: int = 0, scope: Scope | None = None
) -> list[str]:
    """Every finding. `parked` is how many parked sagas the test expected."""
    return check_snapshot(read(connect, scope), at_any_time=at_any_time, parked=parked)


def check_snapshot(snapshot: Snapshot, *, at_any_time: bool = False, parked: int = 0) -> list[str]:
    """What is wrong in a snapshot that was read already."""
    checks = AT_ANY_TIME if at_any_time else (*AT_ANY_TIME, *AT_QUIESCENCE)
    invariant_counter.count([check.__name__ for check in checks], at_rest=not at_any_time)
    found = [f"{check.__name__}: {line}" for check in checks for line in check(snapshot)]
    return found if at_any_time else [*found, *(f"i7_sagas_end: {line}" for line in _unended(snapshot, parked))]


def assert_hold(connect: Connect, *, at_any_time: bool = False, parked: int = 0) -> None:
    """Fail with every finding, one a line."""
    found = find_violations(connect, at_any_time=at_any_time, parked=parked)
    assert not found, "invariants are broken:\n" + "\n".join(found)


# ── money


def i1_money_is_conserved(s: Snapshot) -> Iterable[str]:
    """Σ(balance + frozen) = Σ openings + Σ top-ups − Σ charges of the orders that are CONFIRMED."""
    have = sum((u["credit_balance"] + u["frozen_credits"] for u in s["users"]), Decimal(0))
    came = sum((e["amount"] for e in s["credit_entries"] if e["kind"] in ("OPENING", "TOPUP")), Decimal(0))
    spent = sum((o["credits_charged"] for o in s["orders"] if o["status"] == "CONFIRMED"), Decimal(0))
    at_stake = any(saga["status"] == "PARKED" for saga in s["sagas"])
    if have != came - spent and not at_stake:
        yield f"users have {have}, came in {came}, spent {spent}: off by {have - (came - spent)}"


def i2_balances_are_their_entries(s: Snapshot) -> Iterable[str]:
    """Each balance is the sum of its entries, frozen the sum of its holds; neither is negative."""
    entries = _sums(s["credit_entries"])
    holds = _sums(s["credit_holds"])
    for user in s["users"]:
        if user["credit_balance"] != entries[user["user_id"]] or user["credit_balance"] < 0:
            yield f"{user['email']}: balance {user['credit_balance']}, entries {entries[user['user_id']]}"
        if user["frozen_credits"] != holds[user["user_id"]] or user["frozen_credits"] < 0:
            yield f"{user['email']}: frozen {user['frozen_credits']}, holds {holds[user['user_id']]}"


def i8_payments_credit_once(s: Snapshot) -> Iterable[str]:
    """Each PaymentIntent is credited at most once, and by exactly its amount."""
    topped = [e for e in s["credit_entries"] if e["kind"] == "TOPUP"]
    if len(topped) != len(s["stripe_events"]):
        yield f"{len(topped)} top-up entries, {len(s['stripe_events'])} payments"
    if sum(e["amount"] for e in topped) != sum(p["amount"] for p in s["stripe_events"]):
        yield "top-up entries and payments differ in amount"
    yield from _repeated(s["stripe_events"], "payment_intent_id", "payment intent")


def i11_transfers_move_their_amount(s: Snapshot) -> Iterable[str]:
    """Per transfer, the sellers and buyers together lose nothing: what moved is its amount, once, or nothing."""
    moved: dict[str, dict[Any, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for entry in s["credit_entries"]:
        flow, _, rest = entry["key"].partition(":")
        if flow in ("transfer_confirm", "reverse", "dispute", "dismiss"):
            moved[rest.partition(":")[0]][entry["user_id"]] += entry["amount"]
    for transfer in s["transfers"]:
        yield from _misplaced(transfer, moved[str(transfer["transfer_id"])])


def i12_holds_belong_to_disputes(s: Snapshot) -> Iterable[str]:
    """At quiescence only a disputed transfer keeps credits frozen."""
    disputed = {t["freeze_key"] for t in s["transfers"] if t["status"] == "DISPUTED"}
    for hold in s["credit_holds"]:
        if hold["key"] not in disputed:
            yield f"hold {hold['key']} of {hold['amount']} belongs to no disputed transfer"


def _misplaced(transfer: Mapping[str, Any], moved: Mapping[Any, Decimal]) -> Iterable[str]:
    amount = transfer["credits_amount"] if transfer["status"] in TOOK_EFFECT else Decimal(0)
    frozen = transfer["credits_frozen"] if transfer["status"] == "DISPUTED" else Decimal(0)
    expected = {transfer["seller_user_id"]: amount - frozen, transfer["buyer_user_id"]: -amount}
    for user, change in expected.items():
        if moved.get(user, Decimal(0)) != change:
            which = f"transfer {transfer['transfer_id']} ({transfer['status']})"
            yield f"{which}: {user} moved {moved.get(user, 0)}, due {change}"


# ── seats


def i3_sold_means_paid(s: Snapshot) -> Iterable[str]:
    """SOLD or CHECKED_IN exactly when there is exactly one CONFIRMED order, at the price that it charged."""
    confirmed = defaultdict(list)
    for order in s["orders"]:
        if order["status"] == "CONFIRMED":
            confirmed[order["seat_id"]].append(order)
    for seat in s["seats"]:
        orders = confirmed.pop(seat["seat_id"], [])
        is_sold = seat["status"] in ("SOLD", "CHECKED_IN")
        if len(orders) != int(is_sold):
            yield f"seat {seat['seat_id']} is {seat['status']} with {len(orders)} confirmed orders"
        elif is_sold and not _same_sale(seat, orders[0]):
            yield f"seat {seat['seat_id']} says {seat['price_paid']}, its order {orders[0]['credits_charged']}"
    yield from (f"confirmed orders of unknown seat {seat_id}" for seat_id in confirmed)


def _same_sale(seat: Mapping[str, Any], order: Mapping[str, Any]) -> bool:
    return bool(seat["order_id"] == order["order_id"] and seat["price_paid"] == order["credits_charged"])


def i4_nothing_outlives_its_time(s: Snapshot) -> Iterable[str]:
    """No hold, pending order or open transfer past its time and the sweepers' grace."""
    for seat in s["seats"]:
        if seat["status"] == "HELD" and _is_over(seat["held_until"], s.now["seats_db"]):
            yield f"seat {seat['seat_id']} is HELD since past {seat['held_until']}"
    for order in s["orders"]:
        if order["status"] == "PENDING" and _is_over(order["expires_at"], s.now["orders_db"]):
            yield f"order {order['order_id']} is PENDING since past {order['expires_at']}"
    for transfer in s["transfers"]:
        if transfer["status"] in OPEN and _is_over(transfer["expires_at"], s.now["orders_db"]):
            yield f"transfer {transfer['transfer_id']} is open since past {transfer['expires_at']}"


def i5_one_admission_a_seat(s: Snapshot) -> Iterable[str]:
    """At most one SUCCESS entry a seat."""
    yield from _repeated([e for e in s["entry_logs"] if e["result"] == "SUCCESS"], "seat_id", "admission to seat")


def i5_admitted_means_checked_in(s: Snapshot) -> Iterable[str]:
    """One SUCCESS entry exactly when the seat is CHECKED_IN."""
    admitted = {e["seat_id"] for e in s["entry_logs"] if e["result"] == "SUCCESS"}
    checked_in = {seat["seat_id"] for seat in s["seats"] if seat["status"] == "CHECKED_IN"}
    yield from (f"seat {seat_id}: admission and CHECKED_IN disagree" for seat_id in admitted ^ checked_in)


# ── transfers


def i6_one_open_transfer_a_seat(s: Snapshot) -> Iterable[str]:
    """At most one open or disputed transfer a seat."""
    live = [t for t in s["transfers"] if t["status"] in (*OPEN, "DISPUTED")]
    yield from _repeated(live, "seat_id", "open transfer of seat")


def i6_owner_is_the_end_of_the_chain(s: Snapshot) -> Iterable[str]:
    """The owner is whom the standing transfers of the seat's order lead to, from its buyer on."""
    buyers = {o["order_id"]: o["user_id"] for o in s["orders"]}
    for seat in s["seats"]:
        if seat["order_id"] is None:
            continue
        owner = buyers.get(seat["order_id"])
        chain = [t for t in s["transfers"] if t["order_id"] == seat["order_id"] and t["status"] in TOOK_EFFECT]
        for transfer in sorted(chain, key=lambda t: t["completed_at"]):
            if transfer["seller_user_id"] != owner:
                yield f"seat {seat['seat_id']}: {transfer['seller_user_id']} sold what {owner} owned"
            owner = transfer["buyer_user_id"]
        if seat["owner_user_id"] != owner:
            yield f"seat {seat['seat_id']} belongs to {seat['owner_user_id']}, the chain ends at {owner}"


# ── sagas


def i10_every_notice_is_dealt_with(s: Snapshot) -> Iterable[str]:
    """Every saga that ended done has the outbox rows of its notices."""
    due = {"pay": 1, "refund": 1, "initiate": 2, "transfer_confirm": 2, "dispute": 2, "reverse": 2}
    rows: dict[Any, int] = defaultdict(int)
    for notice in s["outbox"]:
        rows[notice["saga_id"]] += 1
    for saga in s["sagas"]:
        wanted = due.get(saga["flow"], 0) if saga["status"] == "DONE" else 0
        if rows[saga["saga_id"]] != wanted and "resolved_by_hand" not in (saga["result"] or {}):
            yield f"{saga['flow']} {saga['subject']} has {rows[saga['saga_id']]} notices, due {wanted}"


def _unended(s: Snapshot, parked: int) -> Iterable[str]:
    """I7: every saga is terminal, or parked where that was expected."""
    for saga in s["sagas"]:
        if saga["status"] == "RUNNING":
            yield f"{saga['flow']} {saga['subject']} attempt {saga['attempt']} is still RUNNING"
    found = sum(saga["status"] == "PARKED" for saga in s["sagas"])
    if found != parked:
        yield f"{found} sagas are PARKED, expected {parked}"


AT_ANY_TIME = (
    i2_balances_are_their_entries,
    i5_one_admission_a_seat,
    i6_one_open_transfer_a_seat,
    i8_payments_credit_once,
)
AT_QUIESCENCE = (
    i1_money_is_conserved,
    i3_sold_means_paid,
    i4_nothing_outlives_its_time,
    i5_admitted_means_checked_in,
    i6_owner_is_the_end_of_the_chain,
    i10_every_notice_is_dealt_with,
    i11_transfers_move_their_amount,
    i12_holds_belong_to_disputes,
)


def _sums(rows: Rows) -> dict[Any, Decimal]:
    sums: dict[Any, Decimal] = defaultdict(Decimal)
    for row in rows:
        sums[row["user_id"]] += row["amount"]
    return sums


def _repeated(rows: Rows, column: str, what: str) -> Iterable[str]:
    seen: set[Any] = set()
    for row in rows:
        if row[column] in seen:
            yield f"more than one {what} {row[column]}"
        seen.add(row[column])


def _is_over(moment: Any, now: Any) -> bool:
    return moment is not None and (now - moment).total_seconds() > GRACE_SECONDS
