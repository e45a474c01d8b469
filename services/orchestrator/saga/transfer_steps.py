"""The steps of a transfer: initiate, transfer_confirm, dispute, reverse and dismiss. `flows.py` puts them in order.

A step returns the fields that later steps need. An undo gets the key of the step that it reverses.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal
from typing import Any

from services.chassis.errors import Refused
from services.contracts.enums import SeatStatus, TransferStatus
from services.contracts.errors import ErrorCode
from services.contracts.money import CENT
from services.orchestrator.participants import Participants
from services.orchestrator.saga.definition import State, StepResult
from services.orchestrator.saga.purchase_steps import repair_field

# ── initiate


def load_seat(participants: Participants, state: State) -> StepResult:
    """Read the seat with its owner and sale, and the event."""
    seat = participants.inventory.get_owner(state["seat_id"])
    event = participants.events.get(seat.event_id)
    return {
        "seat_status": seat.status,
        "seat_owner": seat.owner_user_id,
        "order_id": seat.order_id,
        "face_value": seat.price_paid,
        "initiator_id": state["seller_user_id" if state["initiated_by"] == "SELLER" else "buyer_user_id"],
        "event_name": event["name"],
    }


def require_transferable(state: State) -> None:
    """Raise Refused unless the seller owns the SOLD seat and the price is allowed."""
    if state["seat_owner"] != state["seller_user_id"]:
        raise Refused(ErrorCode.NOT_SEAT_OWNER, "The seller does not own this seat. Name its owner as the seller.")
    if state["seat_status"] != SeatStatus.SOLD:
        raise Refused(ErrorCode.SEAT_UNAVAILABLE, "This ticket is used or not sold, so it cannot be transferred.")
    _require_price_below_limit(state)


def check_buyers_credits(participants: Participants, state: State, _key: str) -> StepResult:
    """Check that the buyer has enough credits, and read the parties' names for the messages.

    A separate step, because User counts each check. Raises Refused INSUFFICIENT_CREDITS or RATE_LIMITED.
    """
    seller, buyer, initiator = state["seller_user_id"], state["buyer_user_id"], state["initiator_id"]
    return participants.users.check_credits(seller, buyer, initiator, Decimal(state["credits_amount"]))


def _require_price_below_limit(state: State) -> None:
    multiple = Decimal(state.get("resale_max_multiple") or 0)  # absent in sagas that an older version began
    if not multiple:
        return
    limit = (Decimal(state["face_value"]) * multiple).quantize(CENT, ROUND_DOWN)
    if Decimal(state["credits_amount"]) > limit:
        message = f"A ticket of this price can be resold for at most {limit} credits. Start the transfer with less."
        raise Refused(ErrorCode.RESALE_PRICE_TOO_HIGH, message, max_credits=limit)


def create_transfer(participants: Participants, state: State, key: str) -> StepResult:
    """Create an INITIATED transfer. A unique index allows one open transfer per seat."""
    fields = ("transfer_id", "seat_id", "order_id", "seller_user_id", "buyer_user_id", "initiated_by", "credits_amount")
    transfer = participants.orders.create_transfer(key, **{name: state[name] for name in fields})
    return {"expires_at": transfer["expires_at"]}


def fail_transfer(participants: Participants, state: State, key: str) -> object:
    """Set the transfer to FAILED and void `key`, so that the step under it can never take effect."""
    return participants.orders.change_transfer(state["transfer_id"], key, status=TransferStatus.FAILED)


def send_transfer_otps(participants: Participants, state: State, key: str) -> StepResult:
    """Send a code to each party, store both sids, and move the transfer to PENDING_OTP."""
    seller = participants.users.send_otp(state["seller_user_id"], state["initiator_id"])
    buyer = participants.users.send_otp(state["buyer_user_id"], state["initiator_id"])
    participants.orders.change_transfer(
        state["transfer_id"],
        f"{key}:{seller}:{buyer}",
        status=TransferStatus.PENDING_OTP,
        seller_verification_sid=seller,
        buyer_verification_sid=buyer,
    )
    return {"status": TransferStatus.PENDING_OTP}


# ── transfer_confirm


def load_transfer(participants: Participants, state: State) -> StepResult:
    """Read the transfer with its parties and its sale, and the hall that goes on the new ticket."""
    transfer = participants.orders.get_transfer(state["transfer_id"])
    order = participants.orders.get(transfer["order_id"])
    event = participants.events.get(order["event_id"])
    names = ("seat_id", "order_id", "seller_user_id", "buyer_user_id")
    amount = Decimal(transfer["credits_amount"])
    event_facts = {"hall_id": event["hall_id"], "event_name": event["name"]}
    return {"transfer": transfer, "amount": amount, **event_facts, **{name: transfer[name] for name in names}}


def require_verified(state: State) -> None:
    """Raise Refused unless the transfer is PENDING_OTP and both parties have verified their codes."""
    transfer = state["transfer"]
    both = transfer["seller_otp_verified"] and transfer["buyer_otp_verified"]
    if transfer["status"] != TransferStatus.PENDING_OTP or not both:
        raise Refused(ErrorCode.TRANSFER_INVALID_STATE)


def hold_buyers_credits(participants: Participants, state: State, key: str) -> StepResult:
    """Freeze the buyer's credits, so that the seller cannot spend them before the owner has changed."""
    try:
        participants.users.freeze(key, state["buyer_user_id"], state["amount"])
    except Refused as refusal:
        if refusal.code == ErrorCode.INSUFFICIENT_CREDITS:
            message = "The buyer does not have enough credits, so the transfer has failed. Top up and start a new one."
            raise Refused(ErrorCode.INSUFFICIENT_CREDITS, message) from refusal
        raise
    return {}


def unfreeze_credits(participants: Participants, _state: State, key: str) -> object:
    """Return the credits that the step under `key` froze, or void the key when the freeze has not arrived yet."""
    return participants.users.unfreeze(key)


def update_owner(participants: Participants, state: State, key: str) -> StepResult:
    """Make the buyer the owner of the seat and store the hash of a QR code of their own.

    Inventory refuses unless the seller still owns the seat under the same sale. It also counts the buyer's tickets.
    Only this step checks the ticket limit, so that starting a transfer does not reveal another user's tickets.
    """
    try:
        return _change_owner(participants, state, key, state["seller_user_id"], state["buyer_user_id"])
    except Refused as refusal:
        if refusal.code == ErrorCode.TICKET_LIMIT_REACHED:
            message = "The buyer has as many tickets as one account may have for this event. The transfer has failed."
            raise Refused(ErrorCode.TICKET_LIMIT_REACHED, f"{message} Find another buyer.") from refusal
        raise


def _change_owner(
    participants: Participants, state: State, key: str, before: str, after: str, is_return: bool = False
) -> StepResult:
    qr = participants.seal.seal(state["seat_id"], after, state["hall_id"])
    participants.inventory.update_owner(
        key=key,
        seat_id=state["seat_id"],
        order_id=state["order_id"],
        expected_owner_id=before,
        new_owner_id=after,
        qr_code_hash=qr.digest,
        is_return=is_return,
    )
    return {"new_owner_user_id": after}


def pay_seller(participants: Participants, state: State, key: str) -> StepResult:
    """Move the buyer's frozen credits to the seller's balance."""
    participants.users.transfer(key, [state.key("hold_buyers_credits")], state["seller_user_id"])
    return {"credits_transferred": state["amount"]}


def complete_transfer(participants: Participants, state: State, key: str) -> StepResult:
    """Move the transfer from PENDING_OTP to COMPLETED."""
    return _complete(participants, state, key, expected=TransferStatus.PENDING_OTP, **repair_field(state))


def _complete(participants: Participants, state: State, key: str, **fields: Any) -> StepResult:
    participants.orders.change_transfer(state["transfer_id"], key, status=TransferStatus.COMPLETED, **fields)
    return {"status": TransferStatus.COMPLETED}


# ── dispute


def load_transfer_and_seat(participants: Participants, state: State) -> StepResult:
    """Read the transfer like `load_transfer`, and whether its ticket was used."""
    facts = load_transfer(participants, state)
    seat = participants.inventory.get_owner(facts["seat_id"])
    return {**facts, "is_ticket_used": seat.status == SeatStatus.CHECKED_IN}


def dispute_transfer(participants: Participants, state: State, key: str) -> StepResult:
    """Move the latest transfer of the seat from COMPLETED to DISPUTED.

    Order refuses a used ticket and not `check`, because a saga whose dispute has happened must run forward again.
    """
    fields = {name: state[name] for name in ("reason", "is_ticket_used")}
    participants.orders.dispute_transfer(state["transfer_id"], key, **fields)
    return {"status": TransferStatus.DISPUTED}


def freeze_what_is_left(participants: Participants, state: State, key: str) -> StepResult:
    """Freeze the part of the amount that the seller still has."""
    frozen = participants.users.freeze(key, state["seller_user_id"], state["amount"], at_most=True)
    return {"credits_frozen": frozen["amount"], "freeze_key": key}


def record_freeze(participants: Participants, state: State, key: str) -> StepResult:
    """Store the frozen amount and its key in the transfer."""
    participants.orders.change_transfer(
        state["transfer_id"], key, credits_frozen=state["credits_frozen"], freeze_key=state["freeze_key"]
    )
    return {}


# ── reverse and dismiss


def require_disputed(state: State) -> None:
    """Raise Refused unless the transfer is DISPUTED."""
    if state["transfer"]["status"] != TransferStatus.DISPUTED:
        raise Refused(ErrorCode.TRANSFER_INVALID_STATE)


def freeze_the_rest(participants: Participants, state: State, key: str) -> StepResult:
    """Freeze the part of the amount that the dispute did not freeze. Raises Refused CREDITS_UNAVAILABLE."""
    rest = state["amount"] - Decimal(state["transfer"]["credits_frozen"] or 0)
    if rest <= 0:
        return {"rest_frozen": False}
    try:
        participants.users.freeze(key, state["seller_user_id"], rest)
    except Refused as refusal:
        if refusal.code is ErrorCode.INSUFFICIENT_CREDITS:
            raise Refused(ErrorCode.CREDITS_UNAVAILABLE) from refusal
        raise
    return {"rest_frozen": True}


def restore_owner(participants: Participants, state: State, key: str) -> StepResult:
    """Make the seller the owner again. Raises Refused SEAT_UNAVAILABLE if the seat was transferred on or used."""
    try:
        return _change_owner(participants, state, key, state["buyer_user_id"], state["seller_user_id"], is_return=True)
    except Refused as refusal:
        if refusal.code is ErrorCode.NOT_SEAT_OWNER:
            message = "The buyer no longer owns the seat, so it cannot go back to the seller. Dismiss the dispute."
            raise Refused(ErrorCode.SEAT_UNAVAILABLE, message) from refusal
        raise


def pay_buyer_back(participants: Participants, state: State, key: str) -> StepResult:
    """Move all frozen credits of the dispute to the buyer's balance."""
    frozen_by_dispute = [state["transfer"]["freeze_key"]] if state["transfer"]["freeze_key"] else []
    rest = [state.key("freeze_the_rest")] if state["rest_frozen"] else []
    participants.users.transfer(key, frozen_by_dispute + rest, state["buyer_user_id"])
    return {}


def mark_reversed(participants: Participants, state: State, key: str) -> StepResult:
    """Move the transfer from DISPUTED to REVERSED."""
    participants.orders.change_transfer(state["transfer_id"], key, status=TransferStatus.REVERSED)
    return {"status": TransferStatus.REVERSED}


def dismiss_dispute(participants: Participants, state: State, key: str) -> StepResult:
    """Move the transfer from DISPUTED to COMPLETED.

    It expects DISPUTED, because a transfer that has not changed the owner yet must not become COMPLETED.
    """
    return _complete(participants, state, key, expected=TransferStatus.DISPUTED)


def unfreeze_dispute(participants: Participants, state: State, _key: str) -> StepResult:
    """Return the credits that the dispute froze to the seller's balance."""
    if state["transfer"]["freeze_key"]:
        participants.users.unfreeze(state["transfer"]["freeze_key"])
    return {}
