"""Refunds and disputes of a paid PaymentIntent, with the events that Stripe sends about them.

The control plane plays them, because the payer and the bank start them. Callers hold the state's lock.
"""

from typing import Any

from fakes.stripe import objects
from fakes.stripe.events import Call, new_id, store_bounded
from fakes.stripe.objects import Json

MAX_LISTED = 10  # refunds inside a charge
CLOSED = ("won", "lost", "warning_closed")


def refund(call: Call, intent: Json, amount: int | None, reason: str | None) -> Json:
    """Refund `amount`, or the rest. Raises ValueError if the charge has less."""
    charge = _find_charge(call, intent)
    rest = charge["amount"] - charge["amount_refunded"]
    amount = rest if amount is None else amount
    if not 1 <= amount <= rest:
        raise ValueError(f"amount must be 1 to {rest}, the rest of the charge")
    made = objects.refund(new_id(call.state, "re"), call.now, charge, amount, reason)
    store_bounded(call.state, "refunds", made["id"], made)
    _set_refunded(charge, charge["amount_refunded"] + amount)
    charge["refunds"]["data"] = [dict(made), *charge["refunds"]["data"]][:MAX_LISTED]
    call.emit("refund.created", made)
    call.emit("charge.refunded", charge)
    return made


def fail_refund(call: Call, object_id: str) -> Json:
    """Let the bank refuse a refund, so that its amount goes back to the account. Raises ValueError."""
    made = _find(call, "refunds", object_id)
    if made["status"] == "failed":
        raise ValueError("this refund has failed before")
    made |= {"status": "failed", "failure_reason": "expired_or_canceled_card"}
    charge = _find(call, "charges", made["charge"])
    _set_refunded(charge, charge["amount_refunded"] - made["amount"])
    call.emit("refund.failed", made)
    call.emit("charge.refund.updated", made)
    return made


def dispute(call: Call, intent: Json, amount: int | None, reason: str, inquiry: bool) -> Json:
    """Open a dispute, which withdraws the funds, or an inquiry, which does not. Raises ValueError."""
    charge = _find_charge(call, intent)
    amount = charge["amount"] if amount is None else amount
    if charge["disputed"] or not 1 <= amount <= charge["amount"]:
        raise ValueError(f"the charge can have one dispute, of 1 to {charge['amount']}")
    status = "warning_needs_response" if inquiry else "needs_response"
    made = objects.dispute(new_id(call.state, "du"), call.now, charge, amount, reason, status)
    store_bounded(call.state, "disputes", made["id"], made)
    charge["disputed"] = True
    call.emit("charge.dispute.created", made)
    if not inquiry:
        call.emit("charge.dispute.funds_withdrawn", made)
    return made


def close_dispute(call: Call, object_id: str, status: str) -> Json:
    """End a dispute. A won one reinstates the funds. Raises ValueError."""
    made = _find(call, "disputes", object_id)
    if status not in CLOSED or made["status"] in CLOSED:
        raise ValueError(f"status must be one of {', '.join(CLOSED)}, and the dispute must be open")
    made["status"] = status
    call.emit("charge.dispute.closed", made)
    if status == "won":
        call.emit("charge.dispute.funds_reinstated", made)
    return made


def _find_charge(call: Call, intent: Json) -> Json:
    if intent["status"] != "succeeded":
        raise ValueError("the PaymentIntent is not paid")
    return _find(call, "charges", intent["latest_charge"])


def _find(call: Call, collection: str, object_id: Any) -> Json:
    found: Json | None = call.state.store[collection].get(object_id)
    if found is None:
        raise ValueError(f"no such object in {collection}")
    return found


def _set_refunded(charge: Json, amount: int) -> None:
    charge |= {"amount_refunded": amount, "refunded": amount == charge["amount"]}
