"""Signed webhooks of Stripe, as the state machine delivers them."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from uuid import UUID, uuid4

WEBHOOK_SECRET = b"whsec_x"


def build_payment(user_id: UUID, amount: int) -> bytes:
    """The body of a new `payment_intent.succeeded` event."""
    intent = {"id": f"pi_{uuid4().hex}", "object": "payment_intent", "status": "succeeded", "currency": "sgd"}
    intent |= {"metadata": {"user_id": str(user_id)}, "amount_received": amount * 100}  # type: ignore[dict-item]
    event = {"id": f"evt_{uuid4().hex}", "object": "event", "type": "payment_intent.succeeded", "livemode": False}
    return json.dumps({**event, "created": int(time.time()), "data": {"object": intent}}).encode()


def build_reversal(payment: bytes, amount: int, *, is_dispute: bool) -> bytes:
    """The body of an event that reports the whole payment as refunded, or as lost in a dispute."""
    intent = json.loads(payment)["data"]["object"]["id"]
    charge = {"id": f"ch_{intent}", "object": "charge", "amount_refunded": amount * 100}
    dispute = {"id": f"dp_{intent}", "object": "dispute", "amount": amount * 100, "status": "lost"}
    about = (dispute if is_dispute else charge) | {"payment_intent": intent, "currency": "sgd"}
    kind = "charge.dispute.closed" if is_dispute else "charge.refunded"
    event = {"id": f"evt_{uuid4().hex}", "object": "event", "type": kind, "livemode": False}
    return json.dumps({**event, "created": int(time.time()), "data": {"object": about}}).encode()


def sign(payload: bytes) -> dict[str, str]:
    """The headers of a webhook with this body."""
    now = str(int(time.time()))
    signature = hmac.new(WEBHOOK_SECRET, f"{now}.".encode() + payload, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={now},v1={signature}", "Content-Type": "application/json"}
