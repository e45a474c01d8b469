"""Sales: a hold turned into a ticket, the ticket's next owner, and the sale taken back.

Each is the pivot of a saga: its answer is stored under the step's key in the same transaction, so that settling the
key tells for good whether it happened. All of them wait for the seat's row, at most `lock_timeout`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from services.chassis import effects
from services.chassis.db import Database, Row, Transaction
from services.chassis.errors import Refused
from services.contracts.enums import SeatStatus
from services.contracts.errors import ErrorCode
from services.inventory.store import holds

# One statement: `seat` takes the row's lock, `sold` changes it if this hold is still on it. The hold's time is looked
# at by the clock of the moment at which the lock was granted (app_now() is the statement's beginning): waiting for it
# may have been what used it up.
_SELL = """
WITH seat AS MATERIALIZED (
    SELECT seat_id, status, hold_id, held_by_user_id, held_until FROM seats WHERE seat_id = %(seat_id)s FOR UPDATE
),
sold AS (
    UPDATE seats SET
        status = 'SOLD', owner_user_id = %(user_id)s, order_id = %(order_id)s, price_paid = %(price)s,
        qr_code_hash = %(qr_code_hash)s, held_by_user_id = NULL, held_until = NULL, updated_at = statement_timestamp()
    FROM seat
    WHERE seats.seat_id = seat.seat_id AND seat.status = 'HELD' AND seat.hold_id = %(hold_id)s
      AND seat.held_by_user_id = %(user_id)s
      AND seat.held_until > clock_timestamp() + (SELECT shift FROM clock_offset)
    RETURNING seats.seat_id, seats.order_id, seats.owner_user_id
),
recorded AS (
    INSERT INTO effects (key, outcome, answer) SELECT %(key)s, 'DONE', to_jsonb(sold) FROM sold RETURNING answer
)
SELECT status, hold_id, held_by_user_id, (SELECT answer FROM recorded) AS answer FROM seat
"""
_HAND_OVER = """
UPDATE seats SET
    owner_user_id = %(new_owner_id)s, qr_code_hash = %(qr_code_hash)s, updated_at = statement_timestamp()
WHERE seat_id = %(seat_id)s
"""
_TAKE_BACK = f"""
UPDATE seats SET {holds.CLEARED}, owner_user_id = NULL, order_id = NULL, price_paid = NULL, qr_code_hash = NULL
WHERE seat_id = %(seat_id)s
"""


@dataclass(frozen=True)
class Purchase:
    """A hold and what it is sold for."""

    seat_id: UUID
    hold_id: UUID
    order_id: UUID
    user_id: UUID
    price: Decimal
    qr_code_hash: str


@dataclass(frozen=True)
class Ticket:
    """The sale that the caller believes stands, and the owner whom it believes to have it."""

    seat_id: UUID
    order_id: UUID
    expected_owner_id: UUID


def confirm(db: Database, key: str, purchase: Purchase) -> effects.Answer:
    """HELD → SOLD under `key`. Raises Refused SEAT_NOT_FOUND, SEAT_NOT_HELD, HOLD_EXPIRED, STEP_VOIDED."""
    return effects.apply_recorded(db, key, lambda: _sell(db, key, purchase))


def _sell(db: Database, key: str, purchase: Purchase) -> effects.Answer:
    seat = db.statement(_SELL, key=key, **vars(purchase))
    if seat is None:
        raise Refused(ErrorCode.SEAT_NOT_FOUND)
    if seat["answer"] is not None:
        answer: effects.Answer = seat["answer"]
        return answer
    held_by_this = (seat["status"], seat["hold_id"], seat["held_by_user_id"])
    if held_by_this != (SeatStatus.HELD, purchase.hold_id, purchase.user_id):
        raise Refused(ErrorCode.SEAT_NOT_HELD)
    raise Refused(ErrorCode.HOLD_EXPIRED)


def update_owner(db: Database, key: str, ticket: Ticket, new_owner_id: UUID, qr_code_hash: str) -> effects.Answer:
    """The ticket's next owner, under `key`. Raises Refused SEAT_UNAVAILABLE, NOT_SEAT_OWNER, STEP_VOIDED."""

    def effect(tx: Transaction) -> effects.Answer:
        _standing(tx, ticket)
        tx.run(_HAND_OVER, seat_id=ticket.seat_id, new_owner_id=new_owner_id, qr_code_hash=qr_code_hash)
        return _sale(ticket.seat_id, ticket.order_id, new_owner_id)

    return effects.apply(db, key, effect)


def cancel(db: Database, key: str, ticket: Ticket) -> None:
    """SOLD → AVAILABLE under `key`. Raises Refused SEAT_UNAVAILABLE, NOT_SEAT_OWNER, STEP_VOIDED."""

    def effect(tx: Transaction) -> effects.Answer:
        seat = _standing(tx, ticket)
        tx.run(_TAKE_BACK, seat_id=ticket.seat_id)
        effects.void(tx, holds.key_of(seat["hold_id"]))
        return {}

    effects.apply(db, key, effect)


def _standing(tx: Transaction, ticket: Ticket) -> Row:
    """The seat, locked, while this sale of it stands and nobody has gone in on it."""
    seat = holds.lock(tx, ticket.seat_id)
    if seat["status"] != SeatStatus.SOLD or seat["order_id"] != ticket.order_id:
        raise Refused(ErrorCode.SEAT_UNAVAILABLE, "The ticket was used, refunded or sold again.")
    if seat["owner_user_id"] != ticket.expected_owner_id:
        raise Refused(ErrorCode.NOT_SEAT_OWNER)
    return seat


def _sale(seat_id: UUID, order_id: UUID, owner: UUID) -> effects.Answer:
    return {"seat_id": str(seat_id), "order_id": str(order_id), "owner_user_id": str(owner)}
