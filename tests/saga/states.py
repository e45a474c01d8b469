"""States that a flow starts from, written straight into the databases as finished flows would have left them.

The matrix runs thousands of executions; what comes before the request under test is not what it is about.
"""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID, uuid4

from services.chassis import wire
from tests.saga.world import EVENT_ID, World

_SOLD_SEAT = """
UPDATE seats SET status = 'SOLD', hold_id = %(order)s, order_id = %(order)s, owner_user_id = %(owner)s,
    price_paid = %(price)s, qr_code_hash = repeat('0', 64) WHERE seat_id = %(seat)s"""
_CONFIRMED_ORDER = """
INSERT INTO orders (order_id, user_id, seat_id, event_id, status, credits_charged, charge_key, otp_required, expires_at,
    confirmed_at)
VALUES (%(order)s, %(buyer)s, %(seat)s, %(event)s, 'CONFIRMED', %(price)s, %(key)s, false,
    app_now() + interval '5 minutes', app_now())"""
_COMPLETED_TRANSFER = """
INSERT INTO transfers (transfer_id, seat_id, order_id, seller_user_id, buyer_user_id, initiated_by, status,
    seller_otp_verified, buyer_otp_verified, credits_amount, expires_at, completed_at)
VALUES (%(transfer)s, %(seat)s, %(order)s, %(seller)s, %(buyer)s, 'SELLER', 'COMPLETED', true, true, %(amount)s,
    app_now() + interval '10 minutes', app_now())"""
_ENTRY = """
WITH account AS (
    UPDATE users SET credit_balance = credit_balance + %(amount)s WHERE user_id = %(user)s RETURNING credit_balance),
recorded AS (
    INSERT INTO effects (key, outcome, answer) VALUES (%(key)s, 'DONE', %(answer)s))
INSERT INTO credit_entries (key, user_id, amount, kind) SELECT %(key)s, %(user)s, %(amount)s, %(kind)s FROM account"""


def sell(world: World, seat: UUID, buyer: UUID, price: Decimal) -> str:
    """A seat bought and paid for; the order's id."""
    order = uuid4()
    key = f"pay:{order}:1:deduct_credits"
    with world.dbs["inventory"].transaction() as tx:
        tx.run(_SOLD_SEAT, seat=seat, order=order, owner=buyer, price=price)
    with world.dbs["order"].transaction() as tx:
        tx.run(_CONFIRMED_ORDER, order=order, buyer=buyer, seat=seat, event=EVENT_ID, price=price, key=key)
    _entry(world, key, buyer, -price, "DEDUCT")
    return str(order)


def hand_over(world: World, seat: UUID, order: str, seller: UUID, buyer: UUID, amount: Decimal) -> str:
    """A transfer of that seat, completed; the transfer's id."""
    transfer = uuid4()
    with world.dbs["inventory"].transaction() as tx:
        tx.run("UPDATE seats SET owner_user_id = %(buyer)s WHERE seat_id = %(seat)s", buyer=buyer, seat=seat)
    with world.dbs["order"].transaction() as tx:
        tx.run(
            _COMPLETED_TRANSFER, transfer=transfer, seat=seat, order=order, seller=seller, buyer=buyer, amount=amount
        )
    _entry(world, f"swap:{transfer}:1:hold_buyers_credits", buyer, -amount, "FREEZE")
    _entry(world, f"swap:{transfer}:1:pay_seller", seller, amount, "TRANSFER")
    return str(transfer)


def give(world: World, user: UUID, amount: Decimal) -> None:
    """Credits out of nowhere, on the ledger as an opening."""
    _entry(world, f"opening:{uuid4()}", user, amount, "OPENING")


def _entry(world: World, key: str, user: UUID, amount: Decimal, kind: str) -> None:
    answer = wire.encode({"amount": abs(amount)}).decode()
    with world.dbs["user"].transaction() as tx:
        tx.run(_ENTRY, key=key, user=user, amount=amount, kind=kind, answer=answer)
