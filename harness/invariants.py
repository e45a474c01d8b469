"""The invariants across all databases, which suites check after every scenario and after every load.

    assert_hold(connect)                     at rest: no saga runs and every grace period has passed
    assert_hold(connect, at_any_time=True)   under load: only the invariants that a single database can decide

`connect` opens a superuser's connection to the named database ("seats_db", "users_db", …).
Each check yields one line per violation. No line means that the invariant holds in this snapshot.
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

GRACE_SECONDS = 60  # the sweepers must have settled an expired hold or order by then
OPEN = ("INITIATED", "PENDING_OTP")
TOOK_EFFECT = ("COMPLETED", "DISPUTED")
FROM_OUTSIDE = ("OPENING", "TOPUP", "REVERSAL")  # the kinds of entries by which credits come and go
TABLES: dict[str, dict[str, str | None]] = {  # database: its tables, each with the column that `Scope` filters by
    "seats_db": {"seats": "seat_id", "entry_logs": "seat_id"},
    "users_db": dict.fromkeys(
        ("users", "credit_entries", "credit_holds", "stripe_events", "payment_reversals"), "user_id"
    ),
    "orders_db": {"orders": "seat_id", "transfers": "seat_id"},
    "sagas_db": {"sagas": None, "outbox": None},
}


@dataclass(frozen=True)
class Scope:
    """A limit to some seats and users, because suites run many small systems in one database.

    Sagas are not limited.
    """

    seats: Sequence[UUID]
    users: Sequence[UUID]

    def ids(self, column: str) -> list[UUID]:
        """Return the ids that `column` may have."""
        return list(self.seats if column == "seat_id" else self.users)


@dataclass(frozen=True)
class BorrowedConnection:
    """A connection that a check must not close, because its owner uses it again."""

    connection: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def close(self) -> None:
        """Do nothing: the owner closes the connection."""


@dataclass
class Snapshot:
    """All rows of all databases, and the time of each database's clock."""

    rows: dict[str, Rows] = field(default_factory=dict)
    now: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, table: str) -> Rows:
        return self.rows[table]


def read(connect: Connect, scope: Scope | None = None) -> Snapshot:
    """Read all rows, or those in `scope`. Each database is read in one repeatable-read transaction."""
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
    """Begin the transaction and read the database's time, both in one round trip."""
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
    """Read all databases and return every violation. `parked` is the expected number of parked sagas."""
    return check_snapshot(read(connect, scope), at_any_time=at_any_time, parked=parked)


def check_snapshot(snapshot: Snapshot, *, at_any_time: bool = False, parked: int = 0) -> list[str]:
    """Return every violation in `snapshot`."""
    checks = AT_ANY_TIME if at_any_time else (*AT_ANY_TIME, *AT_QUIESCENCE)
    invariant_counter.count([check.__name__ for check in checks], at_rest=not at_any_time)
    found = [f"{check.__name__}: {line}" for check in checks for line in check(snapshot)]
    return found if at_any_time else [*found, *(f"i7_sagas_end: {line}" for line in i7_sagas_end(snapshot, parked))]


def assert_hold(connect: Connect, *, at_any_time: bool = False, parked: int = 0) -> None:
    """Raise AssertionError with one line per violation."""
    found = find_violations(connect, at_any_time=at_any_time, parked=parked)
    assert not found, "invariants are broken:\n" + "\n".join(found)


# ── money


def i1_money_is_conserved(snapshot: Snapshot) -> Iterable[str]:
    """All credits, free or frozen, are the openings and top-ups without reversals and charges of CONFIRMED orders."""
    have = sum((u["credit_balance"] + u["frozen_credits"] for u in snapshot["users"]), Decimal(0))
    came = sum((e["amount"] for e in snapshot["credit_entries"] if e["kind"] in FROM_OUTSIDE), Decimal(0))
    spent = sum((o["credits_charged"] for o in snapshot["orders"] if o["status"] == "CONFIRMED"), Decimal(0))
    at_stake = any(saga["status"] == "PARKED" for saga in snapshot["sagas"])
    if have != came - spent and not at_stake:
        yield f"users have {have}, but {came} came in and {spent} was spent: the difference is {have - (came - spent)}"


def i2_balances_are_their_entries(snapshot: Snapshot) -> Iterable[str]:
    """Each balance is the sum of its entries, and frozen is the sum of its holds. Neither is negative."""
    entries = _sums(snapshot["credit_entries"])
    holds = _sums(snapshot["credit_holds"])
    for user in snapshot["users"]:
        if user["credit_balance"] != entries[user["user_id"]] or user["credit_balance"] < 0:
            yield f"{user['email']}: balance {user['credit_balance']}, entries {entries[user['user_id']]}"
        if user["frozen_credits"] != holds[user["user_id"]] or user["frozen_credits"] < 0:
            yield f"{user['email']}: frozen {user['frozen_credits']}, holds {holds[user['user_id']]}"


def i8_payments_credit_once(snapshot: Snapshot) -> Iterable[str]:
    """Each PaymentIntent is credited at most once, and by exactly its amount."""
    topped = [e for e in snapshot["credit_entries"] if e["kind"] == "TOPUP"]
    if len(topped) != len(snapshot["stripe_events"]):
        yield f"{len(topped)} top-up entries, {len(snapshot['stripe_events'])} payments"
    if sum(e["amount"] for e in topped) != sum(p["amount"] for p in snapshot["stripe_events"]):
        yield "top-up entries and payments differ in amount"
    yield from _find_repeated(snapshot["stripe_events"], "payment_intent_id", "payment intent")
    yield from _check_reversals(snapshot)


def _check_reversals(snapshot: Snapshot) -> Iterable[str]:
    """Each payment loses at most its amount, by exactly the entries and the hold that carry its id."""
    paid = {p["payment_intent_id"]: p["amount"] for p in snapshot["stripe_events"]}
    taken: dict[str, Decimal] = defaultdict(Decimal)
    for entry in snapshot["credit_entries"]:
        if entry["kind"] == "REVERSAL":
            taken[entry["key"].partition(":")[2].partition(":")[0]] -= entry["amount"]
    holds = {hold["key"]: hold["amount"] for hold in snapshot["credit_holds"]}
    for row in snapshot["payment_reversals"]:
        payment = row["payment_intent_id"]
        if taken.pop(payment, Decimal(0)) != row["taken"] or holds.get(row["hold_key"], Decimal(0)) != row["frozen"]:
            yield f"payment {payment}: its entries and its hold are not {row['taken']} taken, {row['frozen']} frozen"
        if row["taken"] + row["frozen"] + row["owed"] > paid.get(payment, Decimal(0)):
            yield f"payment {payment} loses more than it credited"
    yield from (f"payment {payment} was reversed without a record" for payment in taken)


def i11_transfers_move_their_amount(snapshot: Snapshot) -> Iterable[str]:
    """Each transfer moves its amount from buyer to seller exactly once, or nothing."""
    moved: dict[str, dict[Any, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for entry in snapshot["credit_entries"]:
        flow, _, rest = entry["key"].partition(":")
        if flow in ("transfer_confirm", "reverse", "dispute", "dismiss"):
            moved[rest.partition(":")[0]][entry["user_id"]] += entry["amount"]
    for transfer in snapshot["transfers"]:
        yield from _check_movements(transfer, moved[str(transfer["transfer_id"])])


def i12_holds_belong_to_disputes(snapshot: Snapshot) -> Iterable[str]:
    """At rest, only a disputed transfer or a disputed payment keeps credits frozen."""
    disputed = {t["freeze_key"] for t in snapshot["transfers"] if t["status"] == "DISPUTED"}
    disputed |= {row["hold_key"] for row in snapshot["payment_reversals"]}
    for hold in snapshot["credit_holds"]:
        if hold["key"] not in disputed:
            yield f"hold {hold['key']} of {hold['amount']} belongs to no disputed transfer or payment"


def _check_movements(transfer: Mapping[str, Any], moved: Mapping[Any, Decimal]) -> Iterable[str]:
    amount = transfer["credits_amount"] if transfer["status"] in TOOK_EFFECT else Decimal(0)
    frozen = transfer["credits_frozen"] if transfer["status"] == "DISPUTED" else Decimal(0)
    expected = {transfer["seller_user_id"]: amount - frozen, transfer["buyer_user_id"]: -amount}
    for user, change in expected.items():
        if moved.get(user, Decimal(0)) != change:
            which = f"transfer {transfer['transfer_id']} ({transfer['status']})"
            yield f"{which}: {user} moved {moved.get(user, 0)}, expected {change}"


# ── seats


def i3_sold_means_paid(snapshot: Snapshot) -> Iterable[str]:
    """A seat is SOLD or CHECKED_IN exactly when one CONFIRMED order charged its price."""
    confirmed = defaultdict(list)
    for order in snapshot["orders"]:
        if order["status"] == "CONFIRMED":
            confirmed[order["seat_id"]].append(order)
    for seat in snapshot["seats"]:
        orders = confirmed.pop(seat["seat_id"], [])
        is_sold = seat["status"] in ("SOLD", "CHECKED_IN")
        if len(orders) != int(is_sold):
            yield f"seat {seat['seat_id']} is {seat['status']} with {len(orders)} confirmed orders"
        elif is_sold and not _is_same_sale(seat, orders[0]):
            charged = orders[0]["credits_charged"]
            yield f"seat {seat['seat_id']} has price {seat['price_paid']}, but its order charged {charged}"
    yield from (f"confirmed orders of unknown seat {seat_id}" for seat_id in confirmed)


def _is_same_sale(seat: Mapping[str, Any], order: Mapping[str, Any]) -> bool:
    return bool(seat["order_id"] == order["order_id"] and seat["price_paid"] == order["credits_charged"])


def i4_nothing_outlives_its_time(snapshot: Snapshot) -> Iterable[str]:
    """No hold, pending order or open transfer is older than its expiry and the grace period."""
    for seat in snapshot["seats"]:
        if seat["status"] == "HELD" and _is_overdue(seat["held_until"], snapshot.now["seats_db"]):
            yield f"seat {seat['seat_id']} is HELD, but expired at {seat['held_until']}"
    for order in snapshot["orders"]:
        if order["status"] == "PENDING" and _is_overdue(order["expires_at"], snapshot.now["orders_db"]):
            yield f"order {order['order_id']} is PENDING, but expired at {order['expires_at']}"
    for transfer in snapshot["transfers"]:
        if transfer["status"] in OPEN and _is_overdue(transfer["expires_at"], snapshot.now["orders_db"]):
            yield f"transfer {transfer['transfer_id']} is open, but expired at {transfer['expires_at']}"


def i5_one_admission_a_seat(snapshot: Snapshot) -> Iterable[str]:
    """A seat has at most one SUCCESS entry."""
    yield from _find_repeated(
        [e for e in snapshot["entry_logs"] if e["result"] == "SUCCESS"], "seat_id", "admission to seat"
    )


def i5_admitted_means_checked_in(snapshot: Snapshot) -> Iterable[str]:
    """A seat has a SUCCESS entry exactly when it is CHECKED_IN."""
    admitted = {e["seat_id"] for e in snapshot["entry_logs"] if e["result"] == "SUCCESS"}
    checked_in = {seat["seat_id"] for seat in snapshot["seats"] if seat["status"] == "CHECKED_IN"}
    yield from (f"seat {seat_id}: admission and CHECKED_IN disagree" for seat_id in admitted ^ checked_in)


# ── transfers


def i6_one_open_transfer_a_seat(snapshot: Snapshot) -> Iterable[str]:
    """A seat has at most one open or disputed transfer."""
    live = [t for t in snapshot["transfers"] if t["status"] in (*OPEN, "DISPUTED")]
    yield from _find_repeated(live, "seat_id", "open transfer of seat")


def i6_owner_is_the_end_of_the_chain(snapshot: Snapshot) -> Iterable[str]:
    """The owner is the last buyer: the order's buyer, or the buyer of its last transfer that took effect."""
    buyers = {o["order_id"]: o["user_id"] for o in snapshot["orders"]}
    for seat in snapshot["seats"]:
        if seat["order_id"] is None:
            continue
        owner = buyers.get(seat["order_id"])
        chain = [t for t in snapshot["transfers"] if t["order_id"] == seat["order_id"] and t["status"] in TOOK_EFFECT]
        for transfer in chain:
            if transfer["completed_at"] is None:
                yield f"transfer {transfer['transfer_id']} is {transfer['status']} without completed_at"
        for transfer in sorted(chain, key=_get_completion):
            if transfer["seller_user_id"] != owner:
                yield f"seat {seat['seat_id']}: {transfer['seller_user_id']} sold it, but {owner} owned it"
            owner = transfer["buyer_user_id"]
        if seat["owner_user_id"] != owner:
            yield f"seat {seat['seat_id']} belongs to {seat['owner_user_id']}, but the last buyer is {owner}"


def _get_completion(transfer: Mapping[str, Any]) -> tuple[bool, Any]:
    """Return the sort key of a transfer. One without `completed_at` comes last, because it may still be changing."""
    return transfer["completed_at"] is None, transfer["completed_at"] or transfer["created_at"]


# ── sagas


def i10_every_notice_is_dealt_with(snapshot: Snapshot) -> Iterable[str]:
    """Every saga that ended with DONE has an outbox row for each of its notices."""
    due = {"pay": 1, "refund": 1, "initiate": 2, "transfer_confirm": 2, "dispute": 2, "reverse": 2}
    rows: dict[Any, int] = defaultdict(int)
    for notice in snapshot["outbox"]:
        rows[notice["saga_id"]] += 1
    for saga in snapshot["sagas"]:
        wanted = due.get(saga["flow"], 0) if saga["status"] == "DONE" else 0
        if rows[saga["saga_id"]] != wanted and "resolved_by_hand" not in (saga["result"] or {}):
            yield f"{saga['flow']} {saga['subject']} has {rows[saga['saga_id']]} notices, expected {wanted}"


def i7_sagas_end(snapshot: Snapshot, parked: int = 0) -> Iterable[str]:
    """Every saga has ended, and none is PARKED for the staff, unless a test expects it."""
    for saga in snapshot["sagas"]:
        if saga["status"] == "RUNNING":
            yield f"{saga['flow']} {saga['subject']} attempt {saga['attempt']} is still RUNNING"
    found = sum(saga["status"] == "PARKED" for saga in snapshot["sagas"])
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


def _find_repeated(rows: Rows, column: str, what: str) -> Iterable[str]:
    seen: set[Any] = set()
    for row in rows:
        if row[column] in seen:
            yield f"more than one {what} {row[column]}"
        seen.add(row[column])


def _is_overdue(moment: Any, now: Any) -> bool:
    return moment is not None and (now - moment).total_seconds() > GRACE_SECONDS
