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


def sign(payload: bytes) -> dict[str, str]:
    """The headers of a webhook with this body."""
    now = str(int(time.time()))
    signature = hmac.new(WEBHOOK_SECRET, f"{now}.".encode() + payload, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={now},v1={signature}", "Content-Type": "application/json"}
