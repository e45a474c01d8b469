"""Payments that Stripe takes back: refunds, disputes and cancellations.

The claims of a payment decide how much of it must be taken back or frozen. `_settle` moves the difference to what was
moved before. A repeated event therefore moves nothing, and the order of the events does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from services.chassis.db import Database, Row, Transaction
from services.contracts.money import MAX_AMOUNT
from services.user.store import credits

ZERO = Decimal("0.00")

# A payment and a claim on it can be reported at the same time. Under this lock, the later one reads the earlier one.
_LOCK_PAYMENT = "SELECT pg_advisory_xact_lock(hashtextextended(%(payment_intent_id)s, 0))"

# An older event than the stored one changes nothing. Two events of one second are ordered by their rank.
_STORE_CLAIM = """
INSERT INTO payment_claims (claim_id, payment_intent_id, kind, state, amount, event_id, reported_at, rank)
VALUES (%(claim_id)s, %(payment_intent_id)s, %(kind)s, %(state)s, %(amount)s, %(event_id)s, %(reported_at)s, %(rank)s)
ON CONFLICT (claim_id) DO UPDATE
SET state = excluded.state, amount = excluded.amount, event_id = excluded.event_id,
    reported_at = excluded.reported_at, rank = excluded.rank
WHERE (payment_claims.reported_at, payment_claims.rank, payment_claims.amount)
    < (excluded.reported_at, excluded.rank, excluded.amount)"""

_CLAIMS = """
SELECT kind, state, amount, reported_at FROM payment_claims WHERE payment_intent_id = %(payment_intent_id)s"""

_PAYMENT = """
SELECT payment_intent_id, user_id, amount FROM stripe_events WHERE payment_intent_id = %(payment_intent_id)s"""
_OWED_PAYMENTS = """
SELECT payment_intent_id, user_id, amount FROM stripe_events
WHERE payment_intent_id IN (SELECT payment_intent_id FROM payment_reversals WHERE user_id = %(user_id)s AND owed > 0)
ORDER BY created_at, payment_intent_id"""

_REVERSAL = """
SELECT taken, frozen, owed, hold_key, movements FROM payment_reversals
WHERE payment_intent_id = %(payment_intent_id)s"""
_STORE_REVERSAL = """
INSERT INTO payment_reversals (payment_intent_id, user_id, taken, frozen, owed, hold_key, movements)
VALUES (%(payment_intent_id)s, %(user_id)s, %(taken)s, %(frozen)s, %(owed)s, %(hold_key)s, %(movements)s)
ON CONFLICT (payment_intent_id) DO UPDATE
SET taken = excluded.taken, frozen = excluded.frozen, owed = excluded.owed, hold_key = excluded.hold_key,
    movements = excluded.movements"""


@dataclass(frozen=True)
class Claim:
    """A refund, a dispute or a cancellation of a payment, as one event reports it.

    `kind` is REFUND (cumulative), FAILED_REFUND, DISPUTE or CANCELLATION. `state` is OPEN, LOST or DROPPED.
    Events are ordered by `reported_at`, the Unix time of Stripe, then by `rank`.
    """

    event_id: str
    claim_id: str
    payment_intent_id: str
    kind: str
    state: str
    amount: Decimal
    reported_at: int
    rank: int
    is_ours: bool = False  # whether its metadata has the key of a top-up


@dataclass(frozen=True)
class Reversal:
    """The credits of one payment that are taken back or frozen, and those that are owed because they were spent."""

    user_id: UUID
    taken: Decimal = ZERO
    frozen: Decimal = ZERO
    owed: Decimal = ZERO
    hold_key: str | None = None
    movements: int = 0
    is_changed: bool = False


class BalanceOverflow(Exception):
    """The balance cannot hold the credits."""


def lock_payment(tx: Transaction, payment_intent_id: str) -> None:
    """Let all other events of this payment wait until the end of the transaction."""
    tx.run(_LOCK_PAYMENT, payment_intent_id=payment_intent_id)


def report(db: Database, claim: Claim) -> Reversal | None:
    """Store a claim and settle its payment. Idempotent. Returns None for a payment that was not credited.

    Raises BalanceOverflow if the balance cannot hold the credits that the claim gives back.
    """
    with db.transaction() as tx:
        lock_payment(tx, claim.payment_intent_id)
        tx.run(_STORE_CLAIM, **vars(claim))
        payment = tx.one(_PAYMENT, payment_intent_id=claim.payment_intent_id)
        if payment is None:
            return None
        reversal = _settle(tx, payment)
        collect(tx, reversal.user_id)
        return reversal


def collect(tx: Transaction, user_id: UUID) -> None:
    """Take or freeze what the user still owes, as far as the balance allows. Call it after credits were added."""
    for payment in tx.all(_OWED_PAYMENTS, user_id=user_id):
        _settle(tx, payment)


def settle_new_payment(tx: Transaction, payment_intent_id: str) -> None:
    """Apply the claims that were reported before the payment itself."""
    if tx.all(_CLAIMS, payment_intent_id=payment_intent_id):
        _settle(tx, tx.only(_PAYMENT, payment_intent_id=payment_intent_id))


def _settle(tx: Transaction, payment: Row) -> Reversal:
    """Move the difference between what the claims want and what was moved before, as far as credits are there."""
    payment_intent_id, user_id = payment["payment_intent_id"], payment["user_id"]
    balance = credits.lock_balance(tx, user_id)
    stored = tx.one(_REVERSAL, payment_intent_id=payment_intent_id)
    before = Reversal(user_id, **(stored or {}))
    wanted, disputed = _compute_targets(payment["amount"], tx.all(_CLAIMS, payment_intent_id=payment_intent_id))
    available = (balance or ZERO) + before.taken + before.frozen
    if available - min(available, wanted + disputed) > MAX_AMOUNT:
        raise BalanceOverflow
    taken = min(wanted, available)
    frozen = min(disputed, available - taken)
    after = Reversal(user_id, taken, frozen, wanted + disputed - taken - frozen, before.hold_key, before.movements)
    if after == before:
        return before
    after = _move(tx, f"topup:{payment_intent_id}:{before.movements + 1}", before, after)
    tx.run(
        _STORE_REVERSAL, payment_intent_id=payment_intent_id, **{k: v for k, v in vars(after).items() if k in _STORED}
    )
    return after


_STORED = ("user_id", "taken", "frozen", "owed", "hold_key", "movements")


def _move(tx: Transaction, key: str, before: Reversal, after: Reversal) -> Reversal:
    """Write the entries and the hold. First what adds to the balance, so that it is never negative in between."""
    hold_key = before.hold_key
    if before.frozen != after.frozen and hold_key is not None:
        credits.unfreeze(tx, hold_key, {"amount": before.frozen})
        hold_key = None
    if before.taken != after.taken:
        credits.move(tx, f"{key}:reversal", after.user_id, before.taken - after.taken, "REVERSAL")
    if before.frozen != after.frozen and after.frozen:
        hold_key = f"{key}:freeze"
        credits.freeze(tx, hold_key, after.user_id, after.frozen, at_most=False)
    return Reversal(
        after.user_id, after.taken, after.frozen, after.owed, hold_key, before.movements + 1, is_changed=True
    )


def _compute_targets(paid: Decimal, claims: Sequence[dict[str, Any]]) -> tuple[Decimal, Decimal]:
    """Return what must be taken back and what must be frozen, together at most the payment."""
    if any(claim["kind"] == "CANCELLATION" for claim in claims):
        return paid, ZERO
    lost = _sum(claim for claim in claims if claim["kind"] == "DISPUTE" and claim["state"] == "LOST")
    disputed = _sum(claim for claim in claims if claim["kind"] == "DISPUTE" and claim["state"] == "OPEN")
    taken = min(paid, _sum_refunds(claims) + lost)
    return taken, min(disputed, paid - taken)


def _sum_refunds(claims: Sequence[dict[str, Any]]) -> Decimal:
    """The refunds of the charge, without those that failed after its newest total."""
    totals = [claim for claim in claims if claim["kind"] == "REFUND"]
    newest = max((claim["reported_at"] for claim in totals), default=0)
    failed = (c for c in claims if c["kind"] == "FAILED_REFUND" and c["reported_at"] >= newest)
    return max(ZERO, _sum(totals) - _sum(failed))


def _sum(claims: Any) -> Decimal:
    return sum((claim["amount"] for claim in claims), ZERO)
