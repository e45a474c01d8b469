"""States that a flow starts from, written straight into the databases as finished flows would have left them.

The matrix runs thousands of executions; what comes before the request under test is not what it is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from services.chassis import json_codec
from tests.saga.in_process.db_fixtures import EVENT_ID
from tests.saga.in_process.in_process_system import InProcessSystem

_HELD_SEAT = """
WITH seat AS (
    UPDATE seats SET status = 'HELD', hold_id = %(order)s, held_by_user_id = %(user)s,
        held_until = app_now() + interval '5 minutes'
    WHERE seat_id = %(seat)s RETURNING held_until)
INSERT INTO effects (key, outcome, answer)
SELECT 'hold:' || %(order)s, 'DONE', jsonb_build_object('held_until', held_until) FROM seat RETURNING key"""
_PENDING_ORDER = """
INSERT INTO orders (order_id, user_id, seat_id, event_id, credits_charged, otp_required, verification_sid, expires_at)
VALUES (%(order)s, %(user)s, %(seat)s, %(event)s, %(price)s, %(sid)s::text IS NOT NULL, %(sid)s,
    app_now() + interval '5 minutes')
RETURNING order_id"""
_SOLD_SEAT = """
UPDATE seats SET status = 'SOLD', hold_id = %(order)s, order_id = %(order)s, owner_user_id = %(owner)s,
    price_paid = %(price)s, qr_code_hash = repeat('0', 64) WHERE seat_id = %(seat)s RETURNING seat_id"""
_CONFIRMED_ORDER = """
INSERT INTO orders (order_id, user_id, seat_id, event_id, status, credits_charged, charge_key, otp_required, expires_at,
    confirmed_at)
VALUES (%(order)s, %(buyer)s, %(seat)s, %(event)s, 'CONFIRMED', %(price)s, %(key)s, false,
    app_now() + interval '5 minutes', app_now())
RETURNING order_id"""
_TRANSFER = """
INSERT INTO transfers (transfer_id, seat_id, order_id, seller_user_id, buyer_user_id, initiated_by, credits_amount,
    expires_at, status, seller_verification_sid, buyer_verification_sid)
VALUES (%(transfer)s, %(seat)s, %(order)s, %(seller)s, %(buyer)s, 'SELLER', %(amount)s,
    app_now() + interval '10 minutes', 'PENDING_OTP', %(seller_sid)s, %(buyer_sid)s)
RETURNING transfer_id"""
_COMPLETED = """
UPDATE transfers SET status = 'COMPLETED', seller_otp_verified = true, buyer_otp_verified = true,
    seller_verification_sid = NULL, buyer_verification_sid = NULL, completed_at = app_now()
WHERE transfer_id = %(transfer)s RETURNING transfer_id"""
_NEW_OWNER = "UPDATE seats SET owner_user_id = %(buyer)s WHERE seat_id = %(seat)s RETURNING seat_id"
_DISPUTED = """
UPDATE transfers SET status = 'DISPUTED', dispute_reason = 'as it was', dispute_count = 1,
    credits_frozen = credits_amount, freeze_key = %(key)s
WHERE transfer_id = %(transfer)s RETURNING transfer_id"""
_FREEZE = """
WITH account AS (
    UPDATE users SET credit_balance = credit_balance - %(amount)s, frozen_credits = frozen_credits + %(amount)s
    WHERE user_id = %(user)s RETURNING user_id),
entry AS (
    INSERT INTO credit_entries (key, user_id, amount, kind)
    SELECT %(key)s, user_id, -%(amount)s, 'FREEZE' FROM account),
recorded AS (
    INSERT INTO effects (key, outcome, answer) VALUES (%(key)s, 'DONE', %(answer)s))
INSERT INTO credit_holds (key, user_id, amount) SELECT %(key)s, user_id, %(amount)s FROM account RETURNING key"""


@dataclass(frozen=True)
class Handover:
    """A transfer of a sold seat: who to whom, for how much."""

    seat: UUID
    order: str
    seller: UUID
    buyer: UUID
    amount: Decimal


def hold(system: InProcessSystem, seat: UUID, user: UUID, price: Decimal, sid: str | None = None) -> str:
    """A seat reserved, by a flagged user when there is a `sid`; the order's id."""
    order = uuid4()
    system.row("inventory", _HELD_SEAT, order=order, user=user, seat=seat)
    system.row("order", _PENDING_ORDER, order=order, user=user, seat=seat, event=EVENT_ID, price=price, sid=sid)
    return str(order)


def sell(system: InProcessSystem, seat: UUID, buyer: UUID, price: Decimal) -> str:
    """A seat bought and paid for; the order's id."""
    order = uuid4()
    key = f"pay:{order}:1:deduct_credits"
    system.row("inventory", _SOLD_SEAT, seat=seat, order=order, owner=buyer, price=price)
    system.row("order", _CONFIRMED_ORDER, order=order, buyer=buyer, seat=seat, event=EVENT_ID, price=price, key=key)
    system.enter(key, buyer, -price, "DEDUCT")
    return str(order)


def initiate(
    system: InProcessSystem, handover: Handover, seller_sid: str | None = None, buyer_sid: str | None = None
) -> str:
    """A transfer that waits for both codes; the transfer's id."""
    transfer = uuid4()
    parties: dict[str, Any] = {"seller": handover.seller, "buyer": handover.buyer, "amount": handover.amount}
    sids = {"seller_sid": seller_sid, "buyer_sid": buyer_sid}
    system.row("order", _TRANSFER, transfer=transfer, seat=handover.seat, order=handover.order, **parties, **sids)
    return str(transfer)


def hand_over(system: InProcessSystem, handover: Handover) -> str:
    """A transfer, completed; its id."""
    transfer = initiate(system, handover)
    system.row("order", _COMPLETED, transfer=transfer)
    system.row("inventory", _NEW_OWNER, buyer=handover.buyer, seat=handover.seat)
    system.enter(f"transfer_confirm:{transfer}:1:hold_buyers_credits", handover.buyer, -handover.amount, "FREEZE")
    system.enter(f"transfer_confirm:{transfer}:1:pay_seller", handover.seller, handover.amount, "TRANSFER")
    return transfer


def dispute(system: InProcessSystem, transfer: str, seller: UUID, amount: Decimal) -> None:
    """A completed transfer disputed for the first time, its whole amount frozen at the seller."""
    key = f"dispute:{transfer}:1.1:freeze_what_is_left"
    answer = json_codec.encode({"amount": amount}).decode()
    system.row("user", _FREEZE, key=key, user=seller, amount=amount, answer=answer)
    system.row("order", _DISPUTED, key=key, transfer=transfer)


def give(system: InProcessSystem, user: UUID, amount: Decimal) -> None:
    """Credits out of nowhere, on the ledger as an opening."""
    system.enter(f"opening:{uuid4()}", user, amount, "OPENING")
