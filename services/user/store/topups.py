"""Payments that Stripe reports. Each is credited once."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from services.chassis.db import Database
from services.user.store import credits

# One index rejects the same event, the other a second event of the same PaymentIntent. The INSERT waits for a
# concurrent one that has not committed yet.
_RECORD = """
INSERT INTO stripe_events (event_id, payment_intent_id, user_id, amount)
VALUES (%(event_id)s, %(payment_intent_id)s, %(user_id)s, %(amount)s)
ON CONFLICT DO NOTHING"""


class UnknownPayer(Exception):
    """The payment names a user that does not exist."""


def credit(db: Database, event_id: str, payment_intent_id: str, user_id: UUID, amount: Decimal) -> bool:
    """Add a payment to the user's balance, and return False if it was added before. Raises UnknownPayer."""
    with db.transaction() as tx:
        recorded = tx.run(
            _RECORD, event_id=event_id, payment_intent_id=payment_intent_id, user_id=user_id, amount=amount
        )
        if not recorded:
            return False
        if not credits.top_up(tx, f"topup:{payment_intent_id}:1:credit", user_id, amount):
            raise UnknownPayer
    return True
