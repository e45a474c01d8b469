"""The events of Stripe that change credits: a payment, and each way by which its money can go back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta

from services.chassis import json_codec
from services.contracts.money import MAX_AMOUNT, from_cents, to_cents
from services.user.store.reversals import Claim

logger = logging.getLogger(__name__)
T = TypeVar("T")

CURRENCY = "sgd"
PAID = "payment_intent.succeeded"
CANCELED = "payment_intent.canceled"
REFUNDED = "charge.refunded"
REFUND_CHANGED = ("refund.failed", "refund.updated", "charge.refund.updated")
REFUND_FAILURES = ("failed", "canceled")
DISPUTE_RANKS = {  # the order of the events of one dispute within one second
    "charge.dispute.created": 0,
    "charge.dispute.funds_withdrawn": 1,
    "charge.dispute.updated": 2,
    "charge.dispute.closed": 3,
    "charge.dispute.funds_reinstated": 4,
}
# Any other status is open and freezes the amount. An inquiry (`warning_…`) takes no money, but may become a dispute.
DISPUTE_STATES = {"won": "DROPPED", "warning_closed": "DROPPED", "charge_refunded": "DROPPED", "lost": "LOST"}
MAX_CENTS = to_cents(MAX_AMOUNT)


@dataclass(frozen=True)
class Payment:
    """Money that Stripe received for a user."""

    event_id: str
    payment_intent_id: str
    user_id: UUID
    amount: Decimal


Id = Annotated[str, Meta(max_length=255, pattern=r"\A[!-~]+\Z")]
Cents = Annotated[int, Meta(ge=0)]


class _Metadata(msgspec.Struct):
    user_id: UUID


class _PaidIntent(msgspec.Struct):
    id: Id
    amount_received: int
    currency: str
    metadata: _Metadata


class _CanceledIntent(msgspec.Struct):
    id: Id
    metadata: dict[str, Any] | None = None


class _Charge(msgspec.Struct):
    id: Id
    payment_intent: Id
    amount_refunded: Cents
    currency: str


class _Refund(msgspec.Struct):
    id: Id
    payment_intent: Id
    amount: Cents
    currency: str
    status: str | None = None


class _Dispute(_Refund):
    """A dispute has the same fields."""


class _Data(msgspec.Struct, Generic[T]):
    object: T


class _Event(msgspec.Struct, Generic[T]):
    id: Id
    type: str
    data: _Data[T]
    created: Annotated[int, Meta(ge=0, lt=2**62)] = 0


def parse(event: dict[str, Any]) -> Payment | Claim | None:
    """Return the payment or the claim that a verified event reports, or None if it reports neither."""
    kind = event.get("type")
    convert = _PARSERS.get(kind) if isinstance(kind, str) else None
    if convert is None:
        logger.info("Acknowledged an event without effect: %.60r", kind)
        return None
    try:
        return convert(event)
    except msgspec.ValidationError as error:
        logger.warning("Acknowledged a foreign %s: %s", kind, error)
        return None


def _parse_payment(event: dict[str, Any]) -> Payment | None:
    parsed = json_codec.convert(event, _Event[_PaidIntent])
    intent = parsed.data.object
    if intent.currency != CURRENCY or not 0 < intent.amount_received <= MAX_CENTS:
        logger.error("PaymentIntent %s received %d %s", intent.id, intent.amount_received, intent.currency)
        return None
    return Payment(parsed.id, intent.id, intent.metadata.user_id, from_cents(intent.amount_received))


def _parse_cancellation(event: dict[str, Any]) -> Claim:
    parsed = json_codec.convert(event, _Event[_CanceledIntent])
    intent = parsed.data.object
    claim = _claim(parsed, intent.id, intent.id, "CANCELLATION", "LOST", 0)
    return replace(claim, is_ours="topup_key" in (intent.metadata or {}))


def _parse_refund(event: dict[str, Any]) -> Claim | None:
    parsed = json_codec.convert(event, _Event[_Charge])
    charge = parsed.data.object
    if _is_foreign_currency(parsed.type, charge.id, charge.currency):
        return None
    return _claim(parsed, charge.id, charge.payment_intent, "REFUND", "LOST", charge.amount_refunded)


def _parse_failed_refund(event: dict[str, Any]) -> Claim | None:
    parsed = json_codec.convert(event, _Event[_Refund])
    refund = parsed.data.object
    if refund.status not in REFUND_FAILURES or _is_foreign_currency(parsed.type, refund.id, refund.currency):
        return None
    return _claim(parsed, refund.id, refund.payment_intent, "FAILED_REFUND", "DROPPED", refund.amount)


def _parse_dispute(event: dict[str, Any]) -> Claim | None:
    parsed = json_codec.convert(event, _Event[_Dispute])
    dispute, rank = parsed.data.object, DISPUTE_RANKS[parsed.type]
    if _is_foreign_currency(parsed.type, dispute.id, dispute.currency):
        return None
    state = "DROPPED" if parsed.type.endswith("funds_reinstated") else DISPUTE_STATES.get(dispute.status or "", "OPEN")
    if rank == 0:  # the first event of a dispute never replaces another one
        parsed.created = 0
    return _claim(parsed, dispute.id, dispute.payment_intent, "DISPUTE", state, dispute.amount, rank)


def _claim(
    event: _Event[Any], claim_id: str, intent_id: str, kind: str, state: str, cents: int, rank: int = 0
) -> Claim:
    amount = from_cents(min(cents, MAX_CENTS))  # the claims on a payment are limited to its amount
    return Claim(event.id, claim_id, intent_id, kind, state, amount, event.created, rank)


def _is_foreign_currency(kind: str, object_id: str, currency: str) -> bool:
    if currency == CURRENCY:
        return False
    logger.warning("Acknowledged a foreign %s: %s is in %.10r", kind, object_id, currency)
    return True


_PARSERS: dict[str, Callable[[dict[str, Any]], Payment | Claim | None]] = {
    PAID: _parse_payment,
    CANCELED: _parse_cancellation,
    REFUNDED: _parse_refund,
    **dict.fromkeys(REFUND_CHANGED, _parse_failed_refund),
    **dict.fromkeys(DISPUTE_RANKS, _parse_dispute),
}
