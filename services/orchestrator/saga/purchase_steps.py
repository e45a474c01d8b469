"""What each step says, and to whom. One function a call; `sagas.py` puts them in order.

A `do` answers the fields that later steps need. An `undo` gets the key of the step that it undoes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from services.chassis.errors import Refused, Unknown
from services.contracts.enums import OrderStatus, SeatStatus, TransferStatus
from services.contracts.errors import ErrorCode
from services.orchestrator.participants import Participants
from services.orchestrator.saga.definition import State

Answer = Mapping[str, Any]

# ── reserve


def reserve_seat(to: Participants, state: State, _key: str) -> Answer:
    """Hold the seat; the hold's id is the order's."""
    hold = to.inventory.reserve(state["seat_id"], state["user_id"], state["order_id"], state["ttl_seconds"])
    held_until = hold.held_until.ToDatetime(tzinfo=UTC)
    return {"event_id": hold.event_id, "category": hold.category, "held_until": held_until, "status": SeatStatus.HELD}


def release_seat(to: Participants, state: State, _key: str) -> object:
    """Give the hold back; one that has not arrived yet never will."""
    return to.inventory.release(state["seat_id"], state["order_id"])


def price_seat(to: Participants, state: State, _key: str) -> Answer:
    """Event over? Price of the category? Must this user verify a code? Reads only."""
    event = to.events.get(state["event_id"])
    if event["ended"] or _is_past(event["event_date"]):
        raise Refused(ErrorCode.EVENT_ENDED)
    if state["category"] not in event["pricing_tiers"]:
        raise Unknown(f"event {state['event_id']} has no price for category {state['category']}")
    price = Decimal(event["pricing_tiers"][state["category"]])
    return {"price": price, "otp_required": to.users.risk(state["user_id"])["is_flagged"]}


def _is_past(moment: str) -> bool:
    return datetime.fromisoformat(moment) <= datetime.now(UTC)


def create_order(to: Participants, state: State, key: str) -> Answer:
    """A PENDING order with its price, that runs out when the hold does."""
    to.orders.create(
        key,
        order_id=state["order_id"],
        user_id=state["user_id"],
        seat_id=state["seat_id"],
        event_id=state["event_id"],
        price=state["price"],
        expires_at=state["held_until"],
        otp_required=state["otp_required"],
    )
    return {}


def fail_order(to: Participants, state: State, key: str) -> object:
    """The order is FAILED, or will never be what the step under `key` would have made of it."""
    return to.orders.change(state["order_id"], key, status=OrderStatus.FAILED)


def announce_hold(to: Participants, state: State, _key: str) -> Answer:
    """The TTL message. It has no undo: a message for a hold that is gone does nothing."""
    now = datetime.now(UTC)
    to.holds.announce(state["seat_id"], state["user_id"], state["order_id"], now, state["ttl_seconds"])
    return {}


def send_order_otp(to: Participants, state: State, key: str) -> Answer:
    """A flagged user gets a code; the order keeps the sid."""
    if not state["otp_required"]:
        return {}
    sid = to.users.send_otp(state["user_id"])
    to.orders.change(state["order_id"], f"{key}:{sid}", verification_sid=sid)
    return {}


# ── pay


def load_order(to: Participants, state: State) -> Answer:
    """The order with its price, and the hall that goes on the ticket. Reads only."""
    order = to.orders.get(state["order_id"])
    event = to.events.get(order["event_id"])
    return {"order": order, "hall_id": event["hall_id"], "event_name": event["name"], **_facts_of(order)}


def load_own_order(to: Participants, state: State) -> Answer:
    """`load_order`, for its buyer alone: whose it is never changes, so whoever adopts the saga checks it too."""
    facts = load_order(to, state)
    if facts["buyer_id"] != state["user_id"]:
        raise Refused(ErrorCode.FORBIDDEN, "This order is not yours.")
    return facts


def _facts_of(order: Mapping[str, Any]) -> Answer:
    price = Decimal(order["credits_charged"])
    return {"seat_id": order["seat_id"], "event_id": order["event_id"], "buyer_id": order["user_id"], "price": price}


def may_be_paid(state: State) -> None:
    """PENDING, verified where that is required, and in time."""
    order = state["order"]
    if order["status"] == OrderStatus.CONFIRMED:
        raise Refused(ErrorCode.ORDER_ALREADY_CONFIRMED)
    if order["status"] == OrderStatus.PENDING and order["is_expired"]:
        raise Refused(ErrorCode.HOLD_EXPIRED)
    if order["status"] != OrderStatus.PENDING:
        raise Refused(ErrorCode.ORDER_FAILED)
    if order["otp_required"] and not order["otp_verified_at"]:
        raise Refused(ErrorCode.OTP_REQUIRED)


def deduct_credits(to: Participants, state: State, key: str) -> Answer:
    """Charge the price."""
    charged = to.users.deduct(key, state["buyer_id"], state["price"])
    return {"credits_charged": state["price"], "remaining_balance": charged["credit_balance"]}


def refund_credits(to: Participants, _state: State, key: str) -> object:
    """Give the charge back; one that has not arrived yet never will."""
    return to.users.refund(key)


def confirm_order(to: Participants, state: State, key: str) -> Answer:
    """PENDING → CONFIRMED; the order keeps the key of its charge, for a refund one day."""
    charge_key = state.key("deduct_credits")
    to.orders.change(state["order_id"], key, status=OrderStatus.CONFIRMED, charge_key=charge_key)
    return {"status": OrderStatus.CONFIRMED}


def confirm_seat(to: Participants, state: State, key: str) -> Answer:
    """HELD → SOLD, with the hash of the first QR."""
    sealed = to.seal.seal(state["seat_id"], state["buyer_id"], state["hall_id"])
    to.inventory.confirm(
        key=key,
        seat_id=state["seat_id"],
        hold_id=state["order_id"],
        order_id=state["order_id"],
        user_id=state["buyer_id"],
        price=str(state["price"]),
        qr_code_hash=sealed.digest,
    )
    return {"qr": sealed}


def settle_seat(to: Participants, _state: State, key: str) -> bool:
    """Did the seat change hands under `key`? If it did not, it never will."""
    return to.inventory.settle(key)


# ── refund


def may_be_refunded(state: State) -> None:
    """A sale that stands. Whether the buyer still owns the seat, Inventory decides under its lock."""
    if state["order"]["status"] != OrderStatus.CONFIRMED or state["open_transfers"]:
        raise Refused(ErrorCode.ORDER_NOT_REFUNDABLE)


def load_sale(to: Participants, state: State) -> Answer:
    """The order, and whether a transfer of its seat is open or disputed. Reads only."""
    facts = load_order(to, state)
    open_ones = (TransferStatus.INITIATED, TransferStatus.PENDING_OTP, TransferStatus.DISPUTED)
    found = [to.orders.transfers(seat_id=facts["seat_id"], status=status)["data"] for status in open_ones]
    of_this_sale = [transfer for page in found for transfer in page if transfer["order_id"] == state["order_id"]]
    return {**facts, "open_transfers": len(of_this_sale)}


def cancel_sale(to: Participants, state: State, key: str) -> Answer:
    """SOLD → AVAILABLE. Another owner, or a guest inside, makes the order not refundable."""
    try:
        to.inventory.cancel_sale(
            key=key,
            seat_id=state["seat_id"],
            order_id=state["order_id"],
            expected_owner_id=state["buyer_id"],
        )
    except Refused as refusal:
        raise Refused(ErrorCode.ORDER_NOT_REFUNDABLE, f"The seat cannot be taken back: {refusal.message}") from refusal
    return {"status": OrderStatus.REFUNDED}


def refund_charge(to: Participants, state: State, _key: str) -> Answer:
    """The refund goes under the charge's own key, so it can only ever happen once."""
    to.users.refund(state["order"]["charge_key"])
    return {}


def mark_refunded(to: Participants, state: State, key: str) -> Answer:
    """CONFIRMED → REFUNDED."""
    to.orders.change(state["order_id"], key, status=OrderStatus.REFUNDED)
    return {}
