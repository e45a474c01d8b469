"""Compares the acknowledged facts with the end of the run. Each difference is a finding with the name of its kind.

The judge uses none of the invariants of the harness: those compare the databases with one another.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from tests.chaos.end_state import EndState
from tests.chaos.ledger import Ledger, Resale, Sale

SAGA_SECONDS = 5.0  # from the restart of the last process
KEY_SECONDS = 2.0
GROWTH = 0.05
MAY_BECOME = {"PENDING": ("PENDING", "FAILED"), "PENDING_OTP": ("PENDING_OTP", "FAILED")}
TOOK_EFFECT = ("COMPLETED", "DISPUTED")
Findings = Iterator[str]


@dataclass(frozen=True)
class Growth:
    """A figure of a process in two idle moments. `slack` is a growth that means nothing, in the unit of the figure."""

    what: str
    before: float
    after: float
    slack: float

    @property
    def is_leak(self) -> bool:
        """Whether the growth is more than GROWTH."""
        return self.after > self.before * (1 + GROWTH) + self.slack


@dataclass
class Observations:
    """The measurements of the soak itself."""

    tracebacks: list[str] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)


@dataclass
class Case:
    """All that the judge compares."""

    ledger: Ledger
    end: EndState
    seen: Observations = field(default_factory=Observations)


def judge(case: Case) -> list[str]:
    """Return every finding, as `kind: what`."""
    return [f"{kind}: {found}" for kind, check in CHECKS.items() for found in check(case)]


# ── orders and seats


def find_lost_orders(case: Case) -> Findings:
    """A reserve was acknowledged, but the order does not exist."""
    yield from (f"{sale}" for key, sale in case.ledger.sales.items() if key not in case.end.orders)


def find_changed_orders(case: Case) -> Findings:
    """An order has another status, buyer, seat or price than its answers."""
    for key, sale in case.ledger.sales.items():
        order = case.end.orders.get(key)
        if order is None:
            continue
        is_same = (order.customer, order.seat, order.charged) == (sale.customer, sale.seat, sale.price)
        if not is_same or order.status not in MAY_BECOME.get(sale.status, (sale.status,)):
            yield f"{sale} is {order}"


def find_refused_orders(case: Case) -> Findings:
    """An order of a reserve that was refused for good took effect."""
    for key, order in case.end.orders.items():
        if key not in case.ledger.sales and order.status != "FAILED":
            yield f"{key} is {order}, but no answer acknowledged it"


def find_two_winners(case: Case) -> Findings:
    """Two answers acknowledged a sale of one seat."""
    yield from case.ledger.two_winners


def find_early_ends(case: Case) -> Findings:
    """A hold ended before the time in its answer."""
    yield from case.ledger.early_ends


def find_wrong_seats(case: Case) -> Findings:
    """A seat is sold without a sale, or a sold seat is not."""
    sold = {sale.seat for sale in _list_sold(case.ledger)}
    for key, seat in case.end.seats.items():
        if (seat.status in ("SOLD", "CHECKED_IN")) != (key in sold):
            yield f"seat {key} is {seat.status}, {'sold' if key in sold else 'not sold'} in the ledger"
    yield from (f"seat {key} does not exist" for key in sold - case.end.seats.keys())


def find_wrong_owners(case: Case) -> Findings:
    """A sold seat belongs to another person than the last buyer."""
    owners = {sale.seat: sale.customer for sale in _list_sold(case.ledger)}
    owners |= {resale.seat: resale.buyer for resale in _list_effective(case.ledger) if resale.seat in owners}
    for key, owner in owners.items():
        seat = case.end.seats.get(key)
        if seat and seat.owner != owner:
            yield f"seat {key} belongs to {seat.owner}, but the last buyer is {owner}"


def find_endless_holds(case: Case) -> Findings:
    """A hold or an order outlived its time."""
    yield from (f"seat {key} is HELD" for key, seat in case.end.seats.items() if seat.status == "HELD")
    yield from (f"order {key} is PENDING" for key, order in case.end.orders.items() if order.status == "PENDING")


def find_lost_messages(case: Case) -> Findings:
    """A hold was acknowledged, but its message reached no consumer, or was parked."""
    yield from (f"of order {key}" for key in case.ledger.sales if key not in case.end.hold_messages)
    if case.end.parked_messages:
        yield f"{case.end.parked_messages} are parked"


# ── transfers


def find_lost_transfers(case: Case) -> Findings:
    """An initiate was acknowledged, but the transfer does not exist."""
    yield from (f"{resale}" for key, resale in case.ledger.resales.items() if key not in case.end.transfers)


def find_changed_transfers(case: Case) -> Findings:
    """A transfer has another status, party, seat or amount than its answers."""
    for key, resale in case.ledger.resales.items():
        row = case.end.transfers.get(key)
        if row is None:
            continue
        acknowledged = (resale.seat, resale.seller, resale.buyer, resale.amount)
        is_same = (row.seat, row.seller, row.buyer, row.amount) == acknowledged
        if not is_same or row.status not in MAY_BECOME.get(resale.status, (resale.status,)):
            yield f"{resale} is {row}"


def find_refused_transfers(case: Case) -> Findings:
    """A transfer of an initiate that was refused for good is open or took effect."""
    for key, row in case.end.transfers.items():
        if key not in case.ledger.resales and row.status != "FAILED":
            yield f"{key} is {row}, but no answer acknowledged it"


# ── credits


def find_wrong_credits(case: Case) -> Findings:
    """The credits of a user are not the opening balance with all acknowledged changes."""
    expected = _sum_credits(case.ledger)
    for user, credits in expected.items():
        account = case.end.accounts.get(user)
        if account and account.free + account.frozen != credits:
            yield f"{user} has {account.free} and {account.frozen} frozen, expected {credits} together"


def find_wrong_freezes(case: Case) -> Findings:
    """The frozen credits of a user are not those of the open disputes."""
    frozen: dict[str, Decimal] = defaultdict(Decimal)
    for resale in case.ledger.resales.values():
        frozen[resale.seller] += resale.frozen if resale.status == "DISPUTED" else 0
    for user in case.ledger.opening:
        account = case.end.accounts.get(user)
        if account and account.frozen != frozen[user]:
            yield f"{user} has {account.frozen} frozen, expected {frozen[user]}"


def find_wrong_payments(case: Case) -> Findings:
    """A card payment was not credited exactly once, by its amount."""
    for intent, (user, amount) in case.ledger.payments.items():
        payment = case.end.payments.get(intent)
        if payment is None or tuple(payment) != (1, amount):
            yield f"{intent} of {user} over {amount} is {payment}"


# ── gates and accounts


def find_lost_admissions(case: Case) -> Findings:
    """A guest was admitted, but the ticket still counts as unused."""
    for scan in case.ledger.admissions:
        seat = case.end.seats.get(scan.seat)
        if not case.end.admissions[scan.seat] or seat is None or seat.status != "CHECKED_IN":
            yield f"{scan}, but the seat is {seat}"


def find_two_admissions(case: Case) -> Findings:
    """Two scans admitted a guest with one ticket."""
    scans = Counter(scan.seat for scan in case.ledger.admissions)
    yield from (f"seat {seat}" for seat, number in (scans | case.end.admissions).items() if number > 1)


def find_unknown_admissions(case: Case) -> Findings:
    """A ticket is used, but no answer admitted its guest."""
    yield from (f"seat {seat}" for seat in case.end.admissions.keys() - {scan.seat for scan in case.ledger.admissions})


def find_lost_accounts(case: Case) -> Findings:
    """A person logged in, but the account does not exist."""
    for email, user in case.ledger.accounts.items():
        if case.end.emails.get(email) != user:
            yield f"{email} of {user} is {case.end.emails.get(email)}"
    yield from (f"user {user}" for user in case.ledger.opening.keys() - case.end.accounts.keys())


def find_lost_logouts(case: Case) -> Findings:
    """A logout was acknowledged, but the session is not revoked."""
    yield from (f"session {sid}" for sid in case.ledger.logouts if sid not in case.end.revoked)
    yield from case.ledger.open_sessions


def find_lost_passwords(case: Case) -> Findings:
    """A new password was acknowledged, but a login with it is refused."""
    yield from case.ledger.refused_logins


def find_lost_locks(case: Case) -> Findings:
    """An account is locked or unlocked against the last acknowledged command."""
    for user, is_locked in case.ledger.locks.items():
        if (user in case.end.locked) != is_locked:
            yield f"user {user} should be {'locked' if is_locked else 'unlocked'}"


def find_lost_records(case: Case) -> Findings:
    """A command of staff was acknowledged, but the audit does not have it."""
    yield from (f"{action} of {subject}" for action, subject in Counter(case.ledger.commands) - case.end.records)


# ── answers


def find_unanswered_requests(case: Case) -> Findings:
    """A request had no final answer, although every process was healthy again."""
    yield from case.ledger.unanswered


def find_changed_answers(case: Case) -> Findings:
    """A retry got another answer than the request."""
    yield from case.ledger.changed_answers


def find_wrong_answers(case: Case) -> Findings:
    """An answer in a quiet time does not match the spec."""
    yield from case.ledger.wrong_answers


def find_unexplained_errors(case: Case) -> Findings:
    """A request failed while no act could be the cause."""
    for call in case.ledger.calls:
        if (call.status >= 500 or not call.status) and case.ledger.is_quiet(call):
            answer = " ".join(filter(None, (str(call.status or "no answer"), call.code, call.correlation_id)))
            yield f"{call.request} got {answer} after {call.seconds:.2f} s, {case.ledger.describe_moment(call.at)}"


def find_crashes(case: Case) -> Findings:
    """A client got an answer that it does not understand."""
    yield from case.ledger.crashes


# ── the processes


def find_unfinished_sagas(case: Case) -> Findings:
    """A saga is parked or still runs, or its notice was not sent."""
    yield from (f"{case.end.sagas[status]} are {status}" for status in ("PARKED", "RUNNING") if case.end.sagas[status])
    if case.end.unsent_notices:
        yield f"{case.end.unsent_notices} notices were not sent"


def find_slow_recovery(case: Case) -> Findings:
    """A saga or an idempotency key took too long after the last restart of an act."""
    for window in case.ledger.windows:
        if not window.is_restored:
            yield f"{window.act}: the system was not healthy in time"
        for what, took, limit in (
            ("sagas", window.saga_seconds, SAGA_SECONDS),
            ("keys", window.key_seconds, KEY_SECONDS),
        ):
            if took > limit:
                yield f"{window.act}: {what} took {took:.1f} s after the restart, the limit is {limit:g} s"


def find_tracebacks(case: Case) -> Findings:
    """A service logged an exception that it did not expect."""
    yield from case.seen.tracebacks


def find_growth(case: Case) -> Findings:
    """A figure of a process grew, or messages stay in a queue."""
    yield from (f"the message of order {key} is overdue in its queue" for key in case.end.overdue_messages)
    for figure in case.seen.growth:
        if figure.is_leak:
            yield f"{figure.what} grew from {figure.before:g} to {figure.after:g}"


CHECKS = {
    "lost order": find_lost_orders,
    "changed order": find_changed_orders,
    "refused order happened": find_refused_orders,
    "two winners": find_two_winners,
    "early end of a hold": find_early_ends,
    "wrong seat": find_wrong_seats,
    "wrong owner": find_wrong_owners,
    "endless hold": find_endless_holds,
    "lost hold message": find_lost_messages,
    "lost transfer": find_lost_transfers,
    "changed transfer": find_changed_transfers,
    "refused transfer happened": find_refused_transfers,
    "wrong credits": find_wrong_credits,
    "wrong freeze": find_wrong_freezes,
    "wrong payment": find_wrong_payments,
    "lost admission": find_lost_admissions,
    "two admissions": find_two_admissions,
    "unknown admission": find_unknown_admissions,
    "lost account": find_lost_accounts,
    "lost logout": find_lost_logouts,
    "lost password": find_lost_passwords,
    "lost lock": find_lost_locks,
    "lost record": find_lost_records,
    "unanswered request": find_unanswered_requests,
    "changed answer": find_changed_answers,
    "answer against the spec": find_wrong_answers,
    "unexplained error": find_unexplained_errors,
    "crashed client": find_crashes,
    "unfinished saga": find_unfinished_sagas,
    "slow recovery": find_slow_recovery,
    "traceback": find_tracebacks,
    "growth": find_growth,
}


def _list_sold(ledger: Ledger) -> list[Sale]:
    return [sale for sale in ledger.sales.values() if sale.status == "CONFIRMED"]


def _list_effective(ledger: Ledger) -> Iterable[Resale]:
    return (resale for resale in ledger.resales.values() if resale.status in TOOK_EFFECT)


def _sum_credits(ledger: Ledger) -> dict[str, Decimal]:
    """The credits of each user, free and frozen, by the facts of the ledger."""
    credits = dict(ledger.opening)
    for sale in _list_sold(ledger):
        credits[sale.customer] -= sale.price
    for resale in _list_effective(ledger):
        credits[resale.seller] += resale.amount
        credits[resale.buyer] -= resale.amount
    for user, amount in ledger.payments.values():
        credits[user] += amount
    return credits
