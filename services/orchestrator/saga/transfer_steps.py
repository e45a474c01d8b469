"""The steps of transfers: initiate, swap, dispute, reverse, dismiss. Written as `steps.py` is."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from services.chassis.errors import Refused
from services.contracts.enums import SeatStatus, TransferStatus
from services.contracts.errors import ErrorCode
from services.orchestrator.participants import Participants
from services.orchestrator.saga.definition import State

Answer = Mapping[str, Any]

# ── initiate


def load_seat_and_buyer(to: Participants, state: State) -> Answer:
    """The seat with its owner and sale, and what the buyer can spend. Reads only."""
    seat = to.inventory.owner(state["seat_id"])
    buyer = to.users.get(state["buyer_user_id"])
    event = to.events.get(seat.event_id)
    return {
        "seat_status": seat.status,
        "seat_owner": seat.owner_user_id,
        "order_id": seat.order_id,
        "buyer": buyer,
        "event_name": event["name"],
    }


def may_be_transferred(state: State) -> None:
    """The seller owns the seat, it is SOLD, and the buyer can pay."""
    if state["seat_owner"] != state["seller_user_id"]:
        raise Refused(ErrorCode.NOT_SEAT_OWNER, "The seller does not own this seat.")
    if state["seat_status"] != SeatStatus.SOLD:
        raise Refused(ErrorCode.SEAT_UNAVAILABLE, "This ticket has been used or is not sold; it cannot be transferred.")
    if Decimal(state["buyer"]["credit_balance"]) < Decimal(state["credits_amount"]):
        raise Refused(ErrorCode.INSUFFICIENT_CREDITS, "The buyer has not enough credits; top up and try again.")


def create_transfer(to: Participants, state: State, key: str) -> Answer:
    """INITIATED; the partial unique index decides between two."""
    fields = ("transfer_id", "seat_id", "order_id", "seller_user_id", "buyer_user_id", "initiated_by", "credits_amount")
    transfer = to.orders.create_transfer(key, **{name: state[name] for name in fields})
    return {"expires_at": transfer["expires_at"]}


def fail_transfer(to: Participants, state: State, key: str) -> object:
    """The transfer is FAILED, or will never be what the step under `key` would have made of it."""
    return to.orders.change_transfer(state["transfer_id"], key, status=TransferStatus.FAILED)


def send_transfer_otps(to: Participants, state: State, key: str) -> Answer:
    """A code to each party; both sids stored; PENDING_OTP."""
    seller = to.users.send_otp(state["seller_user_id"])
    buyer = to.users.send_otp(state["buyer_user_id"])
    to.orders.change_transfer(
        state["transfer_id"],
        f"{key}:{seller}:{buyer}",
        status=TransferStatus.PENDING_OTP,
        seller_verification_sid=seller,
        buyer_verification_sid=buyer,
    )
    return {"status": TransferStatus.PENDING_OTP}


# ── swap


def load_transfer(to: Participants, state: State) -> Answer:
    """The transfer with its parties, its sale and the hall that goes on the new ticket. Reads only."""
    transfer = to.orders.get_transfer(state["transfer_id"])
    order = to.orders.get(transfer["order_id"])
    event = to.events.get(order["event_id"])
    names = ("seat_id", "order_id", "seller_user_id", "buyer_user_id")
    amount = Decimal(transfer["credits_amount"])
    event_facts = {"hall_id": event["hall_id"], "event_name": event["name"]}
    return {"transfer": transfer, "amount": amount, **event_facts, **{name: transfer[name] for name in names}}


def is_verified(state: State) -> None:
    """Both parties have verified and nothing has ended it."""
    transfer = state["transfer"]
    both = transfer["seller_otp_verified"] and transfer["buyer_otp_verified"]
    if transfer["status"] != TransferStatus.PENDING_OTP or not both:
        raise Refused(ErrorCode.TRANSFER_INVALID_STATE)


def hold_buyers_credits(to: Participants, state: State, key: str) -> Answer:
    """Balance → frozen: nothing becomes spendable before the owner has changed."""
    to.users.freeze(key, state["buyer_user_id"], state["amount"])
    return {}


def unfreeze_credits(to: Participants, _state: State, key: str) -> object:
    """Frozen → balance, what this same step froze."""
    return to.users.unfreeze(key)


def update_owner(to: Participants, state: State, key: str) -> Answer:
    """The buyer owns the seat, if it is still the seller's under the same sale; with a QR of their own."""
    return _change_owner(to, state, key, state["seller_user_id"], state["buyer_user_id"])


def _change_owner(to: Participants, state: State, key: str, before: str, after: str) -> Answer:
    sealed = to.seal.seal(state["seat_id"], after, state["hall_id"])
    to.inventory.update_owner(
        key=key,
        seat_id=state["seat_id"],
        order_id=state["order_id"],
        expected_owner_id=before,
        new_owner_id=after,
        qr_code_hash=sealed.digest,
    )
    return {"new_owner_user_id": after}


def pay_seller(to: Participants, state: State, key: str) -> Answer:
    """The held credits become the seller's."""
    to.users.transfer(key, [state.key("hold_buyers_credits")], state["seller_user_id"])
    return {"credits_transferred": state["amount"]}


def complete_transfer(to: Participants, state: State, key: str) -> Answer:
    """PENDING_OTP → COMPLETED."""
    return _completed(to, state, key, expected=TransferStatus.PENDING_OTP)


def _completed(to: Participants, state: State, key: str, expected: TransferStatus) -> Answer:
    to.orders.change_transfer(state["transfer_id"], key, status=TransferStatus.COMPLETED, expected=expected)
    return {"status": TransferStatus.COMPLETED}


# ── dispute


def dispute_transfer(to: Participants, state: State, key: str) -> Answer:
    """COMPLETED → DISPUTED, once, for the seat's latest sale."""
    to.orders.dispute_transfer(state["transfer_id"], key, state["reason"])
    return {"status": TransferStatus.DISPUTED}


def freeze_what_is_left(to: Participants, state: State, key: str) -> Answer:
    """Freeze what the seller still has of the amount."""
    frozen = to.users.freeze(key, state["seller_user_id"], state["amount"], at_most=True)
    return {"credits_frozen": frozen["amount"], "freeze_key": key}


def record_freeze(to: Participants, state: State, key: str) -> Answer:
    """The transfer remembers how much was frozen and under which key."""
    to.orders.change_transfer(
        state["transfer_id"], key, credits_frozen=state["credits_frozen"], freeze_key=state["freeze_key"]
    )
    return {}


# ── reverse and dismiss


def is_disputed(state: State) -> None:
    """Only a dispute can be decided."""
    if state["transfer"]["status"] != TransferStatus.DISPUTED:
        raise Refused(ErrorCode.TRANSFER_INVALID_STATE)


def freeze_the_rest(to: Participants, state: State, key: str) -> Answer:
    """With what the dispute froze, the whole amount is frozen; or the seller has spent it."""
    rest = state["amount"] - Decimal(state["transfer"]["credits_frozen"] or 0)
    if rest <= 0:
        return {"rest_frozen": False}
    try:
        to.users.freeze(key, state["seller_user_id"], rest)
    except Refused as refusal:
        if refusal.code is ErrorCode.INSUFFICIENT_CREDITS:
            raise Refused(ErrorCode.CREDITS_UNAVAILABLE) from refusal
        raise
    return {"rest_frozen": True}


def restore_owner(to: Participants, state: State, key: str) -> Answer:
    """The seller owns the seat again. Moved on or checked in: SEAT_UNAVAILABLE."""
    try:
        return _change_owner(to, state, key, state["buyer_user_id"], state["seller_user_id"])
    except Refused as refusal:
        if refusal.code is ErrorCode.NOT_SEAT_OWNER:
            raise Refused(ErrorCode.SEAT_UNAVAILABLE, "The seat has moved on; it cannot be handed back.") from refusal
        raise


def pay_buyer_back(to: Participants, state: State, key: str) -> Answer:
    """All that was frozen becomes the buyer's."""
    frozen_by_dispute = [state["transfer"]["freeze_key"]] if state["transfer"]["freeze_key"] else []
    rest = [state.key("freeze_the_rest")] if state["rest_frozen"] else []
    to.users.transfer(key, frozen_by_dispute + rest, state["buyer_user_id"])
    return {}


def mark_reversed(to: Participants, state: State, key: str) -> Answer:
    """DISPUTED → REVERSED."""
    to.orders.change_transfer(state["transfer_id"], key, status=TransferStatus.REVERSED)
    return {"status": TransferStatus.REVERSED}


def dismiss_dispute(to: Participants, state: State, key: str) -> Answer:
    """DISPUTED → COMPLETED, and from nothing else: a swap that has not run must not look as if it had."""
    return _completed(to, state, key, expected=TransferStatus.DISPUTED)


def unfreeze_dispute(to: Participants, state: State, _key: str) -> Answer:
    """The seller may spend again what the dispute froze."""
    if state["transfer"]["freeze_key"]:
        to.users.unfreeze(state["transfer"]["freeze_key"])
    return {}
