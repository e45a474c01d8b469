"""Sales: the sale of a held seat, a change of its owner, and the cancellation of a sale.

Each is the pivot of a saga. Its transaction stores the answer under the key of the step, so `settle` can decide
whether the pivot happened. Each waits for the seat's row for at most `lock_timeout`.
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

# One statement: `seat` locks the row, and `sold` updates it if it still has this hold. The hold can expire during the
# wait for the lock. The check therefore uses clock_timestamp(), because app_now() is the start of the statement.
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
# The limit of holds is 0 here, because a transfer is no hold.
_UPDATE_OWNER = """
UPDATE seats SET
    owner_user_id = %(new_owner_id)s, qr_code_hash = %(qr_code_hash)s, updated_at = statement_timestamp()
WHERE seat_id = %(seat_id)s
  AND (%(is_return)s OR reached_limit(%(new_owner_id)s, event_id, seat_id, 0, %(max_tickets)s)
       IS DISTINCT FROM 'TICKET_LIMIT_REACHED')
"""
_CANCEL = f"""
UPDATE seats SET {holds.CLEARED}, owner_user_id = NULL, order_id = NULL, price_paid = NULL, qr_code_hash = NULL
WHERE seat_id = %(seat_id)s
"""


@dataclass(frozen=True)
class Purchase:
    """The sale of a hold."""

    seat_id: UUID
    hold_id: UUID
    order_id: UUID
    user_id: UUID
    price: Decimal
    qr_code_hash: str


@dataclass(frozen=True)
class Ticket:
    """The sale and the owner that the caller expects."""

    seat_id: UUID
    order_id: UUID
    expected_owner_id: UUID


@dataclass(frozen=True)
class OwnerChange:
    """The new owner of a ticket. A return to an earlier owner has no ticket limit."""

    new_owner_id: UUID
    qr_code_hash: str
    is_return: bool = False


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


def update_owner(db: Database, key: str, ticket: Ticket, change: OwnerChange, max_tickets: int) -> effects.Answer:
    """Change the ticket's owner under `key`.

    Raises Refused SEAT_UNAVAILABLE, NOT_SEAT_OWNER, STEP_VOIDED, and TICKET_LIMIT_REACHED unless it is a return.
    """

    def effect(tx: Transaction) -> effects.Answer:
        _lock_current_sale(tx, ticket)
        if not tx.run(_UPDATE_OWNER, seat_id=ticket.seat_id, **vars(change), max_tickets=max_tickets):
            raise Refused(ErrorCode.TICKET_LIMIT_REACHED)
        return _sale(ticket.seat_id, ticket.order_id, change.new_owner_id)

    return effects.apply(db, key, effect)


def cancel(db: Database, key: str, ticket: Ticket) -> None:
    """SOLD → AVAILABLE under `key`. Raises Refused SEAT_UNAVAILABLE, NOT_SEAT_OWNER, STEP_VOIDED."""

    def effect(tx: Transaction) -> effects.Answer:
        seat = _lock_current_sale(tx, ticket)
        tx.run(_CANCEL, seat_id=ticket.seat_id)
        effects.void(tx, holds.key_of(seat["hold_id"]))
        return {}

    effects.apply(db, key, effect)


def _lock_current_sale(tx: Transaction, ticket: Ticket) -> Row:
    """Lock and return the seat if it still has this sale and owner, and its ticket is unused."""
    seat = holds.lock(tx, ticket.seat_id)
    if seat["status"] != SeatStatus.SOLD or seat["order_id"] != ticket.order_id:
        raise Refused(ErrorCode.SEAT_UNAVAILABLE, "The ticket was used, refunded or sold again.")
    if seat["owner_user_id"] != ticket.expected_owner_id:
        raise Refused(ErrorCode.NOT_SEAT_OWNER)
    return seat


def _sale(seat_id: UUID, order_id: UUID, owner: UUID) -> effects.Answer:
    return {"seat_id": str(seat_id), "order_id": str(order_id), "owner_user_id": str(owner)}
