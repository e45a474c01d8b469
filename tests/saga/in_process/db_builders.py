"""Inserts the states from which a flow starts, as finished flows would have left them.

The matrix runs thousands of executions, so it does not run the earlier flows. `test_db_builders.py` proves that the
inserted rows equal the rows of real flows.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from services.chassis import json_codec
from tests.saga.in_process.db_fixtures import EVENT_ID
from tests.saga.in_process.in_process_system import InProcessSystem
from tests.support import inserts

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
    """The terms of a transfer of a sold seat."""

    seat: UUID
    order: str
    seller: UUID
    buyer: UUID
    amount: Decimal


def hold_seat(system: InProcessSystem, seat: UUID, user: UUID, price: Decimal, sid: str | None = None) -> str:
    """Insert a hold and its PENDING order, and return the order's id. A flagged user has a verification `sid`."""
    order = uuid4()
    system.row("inventory", _HELD_SEAT, order=order, user=user, seat=seat)
    system.row("order", _PENDING_ORDER, order=order, user=user, seat=seat, event=EVENT_ID, price=price, sid=sid)
    return str(order)


def sell_seat(system: InProcessSystem, seat: UUID, buyer: UUID, price: Decimal) -> str:
    """Insert a sale that the buyer has paid, and return the order's id."""
    [order] = inserts.sales(system.connect, str(buyer), [str(seat)], str(EVENT_ID), price)
    return order


def start_transfer(
    system: InProcessSystem, handover: Handover, seller_sid: str | None = None, buyer_sid: str | None = None
) -> str:
    """Insert a transfer that waits for both one-time passwords, and return its id."""
    transfer = uuid4()
    parties: dict[str, Any] = {"seller": handover.seller, "buyer": handover.buyer, "amount": handover.amount}
    sids = {"seller_sid": seller_sid, "buyer_sid": buyer_sid}
    system.row("order", _TRANSFER, transfer=transfer, seat=handover.seat, order=handover.order, **parties, **sids)
    return str(transfer)


def complete_transfer(system: InProcessSystem, handover: Handover) -> str:
    """Insert a COMPLETED transfer, and return its id."""
    transfer = start_transfer(system, handover)
    system.row("order", _COMPLETED, transfer=transfer)
    system.row("inventory", _NEW_OWNER, buyer=handover.buyer, seat=handover.seat)
    prefix = f"transfer_confirm:{transfer}:1"
    system.change_balance(handover.buyer, -handover.amount, "FREEZE", f"{prefix}:hold_buyers_credits")
    system.change_balance(handover.seller, handover.amount, "TRANSFER", f"{prefix}:pay_seller")
    return transfer


def dispute_transfer(system: InProcessSystem, transfer: str, seller: UUID, amount: Decimal) -> None:
    """Dispute a completed transfer for the first time, and freeze its whole amount at the seller."""
    key = f"dispute:{transfer}:1.1:freeze_what_is_left"
    answer = json_codec.encode({"amount": amount}).decode()
    system.row("user", _FREEZE, key=key, user=seller, amount=amount, answer=answer)
    system.row("order", _DISPUTED, key=key, transfer=transfer)


def add_credits(system: InProcessSystem, user: UUID, amount: Decimal) -> None:
    """Change the opening balance of a user. A negative amount takes credits away."""
    inserts.changes(system.connect("users_db"), [inserts.opening(str(user), amount)])
