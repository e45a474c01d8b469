"""The steps of a purchase: reserve, pay and refund. `flows.py` puts them in order.

A step returns the fields that later steps need. An undo gets the key of the step that it reverses. An undo that
arrives before its step voids the key, so that the step is refused later.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from services.chassis import tokens
from services.chassis.errors import Refused, Unknown
from services.contracts.enums import OrderStatus, SeatStatus, TransferStatus
from services.contracts.errors import ErrorCode
from services.contracts.pb import inventory_pb2 as pb
from services.orchestrator.participants import Participants
from services.orchestrator.saga.definition import State, StepResult

# ── reserve


def reserve_seat(participants: Participants, state: State, _key: str) -> StepResult:
    """Hold the seat. The id of the hold is the order's id. If the user holds it already, the next step decides."""
    try:
        return _describe_hold(participants.inventory.reserve(*_hold_fields(state)))
    except Refused as refusal:
        if "order_id" not in refusal.details:
            raise
        return {"own_hold": refusal}


def replace_failed_hold(participants: Participants, state: State, _key: str) -> StepResult:
    """Replace the user's own hold if its order has FAILED. Raises Refused SEAT_UNAVAILABLE if the order can be paid.

    Raises Refused REQUEST_IN_PROGRESS while a saga may still change that order or return its credits. No other saga
    can begin for it afterwards, because every flow refuses an order that has failed.
    """
    refusal: Refused | None = state.get("own_hold")
    if refusal is None:
        return {}
    order_id = refusal.details["order_id"]
    has_failed = _has_failed(participants, order_id)
    live_flow = participants.find_live_flow(UUID(order_id))
    if live_flow == "pay" or (live_flow and has_failed):
        message = "The previous order of this seat has not ended yet. Try again shortly."
        raise Refused(ErrorCode.REQUEST_IN_PROGRESS, message, order_id=order_id)
    if not has_failed:
        raise refusal
    return _describe_hold(participants.inventory.reserve(*_hold_fields(state), replaces_hold_id=order_id))


def _has_failed(participants: Participants, order_id: str) -> bool:
    try:
        return bool(participants.orders.get(order_id)["status"] == OrderStatus.FAILED)
    except Refused:  # the reserve of that hold has not created its order yet
        return False


def _hold_fields(state: State) -> tuple[str, str, str, int]:
    return state["seat_id"], state["user_id"], state["order_id"], state["ttl_seconds"]


def _describe_hold(hold: pb.Hold) -> StepResult:
    held_until = hold.held_until.ToDatetime(tzinfo=UTC)
    return {"event_id": hold.event_id, "category": hold.category, "held_until": held_until, "status": SeatStatus.HELD}


def release_seat(participants: Participants, state: State, _key: str) -> object:
    """Release the hold, or void its id when the hold has not arrived yet."""
    return participants.inventory.release(state["seat_id"], state["order_id"])


def price_seat(participants: Participants, state: State, _key: str) -> StepResult:
    """Read the price of the category and whether this user must verify a code. Raises Refused EVENT_ENDED."""
    event = participants.events.get(state["event_id"])
    if event["ended"] or _is_past(event["event_date"]):
        raise Refused(ErrorCode.EVENT_ENDED)
    if state["category"] not in event["pricing_tiers"]:
        raise Unknown(f"event {state['event_id']} has no price for category {state['category']}")
    price = Decimal(event["pricing_tiers"][state["category"]])
    return {"price": price, "otp_required": participants.users.get_risk(state["user_id"])["is_flagged"]}


def _is_past(moment: str) -> bool:
    return tokens.is_past(datetime.fromisoformat(moment).timestamp())


def create_order(participants: Participants, state: State, key: str) -> StepResult:
    """Create a PENDING order with its price. It expires with the hold.

    The broker takes as long as Order, so the message of the hold is sent first. Without the order it does nothing.
    """
    if "sent" not in state:
        state["sent"] = participants.hold_messages.send(*_hold_fields(state))
    participants.orders.create(
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


def fail_order(participants: Participants, state: State, key: str) -> object:
    """Set the order to FAILED and void `key`, so that the step under it can never take effect."""
    return participants.orders.change(state["order_id"], key, status=OrderStatus.FAILED)


def publish_hold_message(participants: Participants, state: State, _key: str) -> StepResult:
    """Publish the message that releases the seat when its hold expires, or wait for the confirm of the one sent."""
    participants.hold_messages.publish(*_hold_fields(state), sent=state.pop("sent", None))
    return {}


def send_order_otp(participants: Participants, state: State, key: str) -> StepResult:
    """Send a code to a flagged user and store its sid in the order."""
    if not state["otp_required"]:
        return {}
    sid = participants.users.send_otp(state["user_id"], state["user_id"])
    participants.orders.change(state["order_id"], f"{key}:{sid}", verification_sid=sid)
    return {}


# ── pay


def load_order(participants: Participants, state: State) -> StepResult:
    """Read the order with its price, and the hall that goes on the ticket."""
    order = _read_order(participants, state)
    event = participants.events.get(order["event_id"])
    return {"order": order, "hall_id": event["hall_id"], "event_name": event["name"], **_sale_fields(order)}


def _read_order(participants: Participants, state: State) -> Mapping[str, Any]:
    """Return the order as its reserve made it, or read it if it may have changed since then."""
    reserved: Mapping[str, Any] | None = state.get("reserved")
    if reserved is None:
        return participants.orders.get(state["order_id"])
    return {**reserved, "status": OrderStatus.PENDING, "is_expired": False, "credits_charged": reserved["price"]}


def load_own_order(participants: Participants, state: State) -> StepResult:
    """Read the order like `load_order`. Raises Refused FORBIDDEN unless the caller is its buyer.

    An order's buyer never changes, so an adopter of the saga can repeat the check.
    """
    facts = load_order(participants, state)
    if facts["buyer_id"] != state["user_id"]:
        raise Refused(ErrorCode.FORBIDDEN, "This order belongs to another user. Use one of your own orders.")
    return facts


def _sale_fields(order: Mapping[str, Any]) -> StepResult:
    price = Decimal(order["credits_charged"])
    return {"seat_id": order["seat_id"], "event_id": order["event_id"], "buyer_id": order["user_id"], "price": price}


def require_payable(state: State) -> None:
    """Raise Refused unless the order is PENDING, not expired, and verified if it needs a code."""
    order = state["order"]
    if order["status"] == OrderStatus.CONFIRMED:
        raise Refused(ErrorCode.ORDER_ALREADY_CONFIRMED)
    if order["status"] == OrderStatus.PENDING and order["is_expired"]:
        raise Refused(ErrorCode.HOLD_EXPIRED)
    if order["status"] != OrderStatus.PENDING:
        raise Refused(ErrorCode.ORDER_FAILED)
    if order["otp_required"] and not order["otp_verified_at"]:
        raise Refused(ErrorCode.OTP_REQUIRED)


def deduct_credits(participants: Participants, state: State, key: str) -> StepResult:
    """Charge the price to the buyer."""
    charged = participants.users.deduct(key, state["buyer_id"], state["price"])
    return {"credits_charged": state["price"], "remaining_balance": charged["credit_balance"]}


def refund_credits(participants: Participants, _state: State, key: str) -> object:
    """Return the charge, or void its key when the charge has not arrived yet."""
    return participants.users.refund(key)


def confirm_order(participants: Participants, state: State, key: str) -> StepResult:
    """Move the order from PENDING to CONFIRMED. The order keeps the charge's key for a later refund."""
    fields = {"charge_key": state.key("deduct_credits"), **repair_field(state)}
    participants.orders.change(state["order_id"], key, status=OrderStatus.CONFIRMED, **fields)
    return {"status": OrderStatus.CONFIRMED}


def repair_field(state: State) -> Mapping[str, Any]:
    """Return the field with which Order accepts a change that its own restored rows do not allow."""
    return {"is_repair": True} if state.get("is_repair") else {}


def confirm_seat(participants: Participants, state: State, key: str) -> StepResult:
    """Move the seat from HELD to SOLD and store the hash of the first QR code."""
    qr = participants.seal.seal(state["seat_id"], state["buyer_id"], state["hall_id"])
    participants.inventory.confirm(
        key=key,
        seat_id=state["seat_id"],
        hold_id=state.get("new_hold_id", state["order_id"]),
        order_id=state["order_id"],
        user_id=state["buyer_id"],
        price=str(state["price"]),
        qr_code_hash=qr.digest,
    )
    return {"qr": qr}


def settle_seat(participants: Participants, _state: State, key: str) -> bool:
    """Return whether Inventory applied the change under `key`. If not, Inventory voids the key."""
    return participants.inventory.settle(key)


# ── refund


def require_refundable(state: State) -> None:
    """Raise Refused unless the order is CONFIRMED and no transfer of its seat is open or disputed.

    Inventory checks under its row lock whether the buyer still owns the seat.
    """
    if state["order"]["status"] != OrderStatus.CONFIRMED or state["open_transfers"]:
        raise Refused(ErrorCode.ORDER_NOT_REFUNDABLE)


def load_sale(participants: Participants, state: State) -> StepResult:
    """Read the order and count the open or disputed transfers of its seat."""
    facts = load_order(participants, state)
    unfinished = (TransferStatus.INITIATED, TransferStatus.PENDING_OTP, TransferStatus.DISPUTED)
    pages = [
        participants.orders.list_transfers(seat_id=facts["seat_id"], status=status)["data"] for status in unfinished
    ]
    of_this_sale = [transfer for page in pages for transfer in page if transfer["order_id"] == state["order_id"]]
    return {**facts, "open_transfers": len(of_this_sale)}


def cancel_sale(participants: Participants, state: State, key: str) -> StepResult:
    """Move the seat from SOLD to AVAILABLE. Raises Refused ORDER_NOT_REFUNDABLE if it was transferred or used."""
    try:
        participants.inventory.cancel_sale(
            key=key,
            seat_id=state["seat_id"],
            order_id=state["order_id"],
            expected_owner_id=state["buyer_id"],
        )
    except Refused as refusal:
        message = f"The sale of this seat cannot be cancelled. {refusal.message}"
        raise Refused(ErrorCode.ORDER_NOT_REFUNDABLE, message) from refusal
    return {"status": OrderStatus.REFUNDED}


def refund_charge(participants: Participants, state: State, _key: str) -> StepResult:
    """Refund under the key of the charge, so that one charge is refunded at most once."""
    participants.users.refund(state["order"]["charge_key"])
    return {}


def mark_refunded(participants: Participants, state: State, key: str) -> StepResult:
    """Move the order from CONFIRMED to REFUNDED."""
    participants.orders.change(state["order_id"], key, status=OrderStatus.REFUNDED)
    return {}
