"""Payments that Stripe reports. Each is credited once."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from services.chassis.db import Database
from services.contracts.money import MAX_AMOUNT
from services.user.store import credits, reversals
from services.user.store.reversals import BalanceOverflow

# One index rejects the same event, the other a second event of the same PaymentIntent. The INSERT waits for a
# concurrent one that has not committed yet.
_RECORD = """
INSERT INTO stripe_events (event_id, payment_intent_id, user_id, amount)
VALUES (%(event_id)s, %(payment_intent_id)s, %(user_id)s, %(amount)s)
ON CONFLICT DO NOTHING"""


class UnknownPayer(Exception):
    """The payment names a user that does not exist."""


def credit(db: Database, event_id: str, payment_intent_id: str, user_id: UUID, amount: Decimal) -> bool:
    """Add a payment to the user's balance, and return False if it was added before.

    Claims on the payment that were reported earlier, and older debts of the user, are taken from the balance at once.
    Raises UnknownPayer, and BalanceOverflow if the balance cannot hold the credits.
    """
    with db.transaction() as tx:
        reversals.lock_payment(tx, payment_intent_id)
        recorded = tx.run(
            _RECORD, event_id=event_id, payment_intent_id=payment_intent_id, user_id=user_id, amount=amount
        )
        if not recorded:
            return False
        balance = credits.lock_balance(tx, user_id)
        if balance is None:
            raise UnknownPayer
        if balance + amount > MAX_AMOUNT:
            raise BalanceOverflow
        credits.move(tx, f"topup:{payment_intent_id}:1:credit", user_id, amount, "TOPUP")
        reversals.settle_new_payment(tx, payment_intent_id)
        reversals.collect(tx, user_id)
    return True
