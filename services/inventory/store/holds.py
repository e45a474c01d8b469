"""Holds: a seat kept for one user until `held_until`, fenced by `hold_id` (D2, D3 of the decisions).

Whatever takes a hold off a seat voids the hold's key `hold:{hold_id}` in the same transaction, so that a ReserveSeat
that arrives late, or twice, cannot bring a dead hold back. Lock order everywhere: the seat's row, then the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.chassis import effects
from services.chassis.db import Database, LockNotGranted, Row, Transaction
from services.chassis.errors import Refused
from services.contracts.enums import SeatStatus
from services.contracts.errors import ErrorCode

# What a seat loses with its hold. Not app_now(): see schema.sql.
CLEARED = """status = 'AVAILABLE', held_by_user_id = NULL, held_until = NULL, hold_id = NULL,
    updated_at = statement_timestamp()"""

# One statement, one round trip: this is what a stampede runs. `seat` takes the row's lock or fails at once; `held`
# changes it only if it is free or its hold's time is up; `taken_over` kills the key of the hold that was there.
# The lock is on the row as it is now, but the update begins with the row as the statement first saw it, and checks that
# one too: a sale that was cancelled in between has to be out of it.
_HOLD = """
WITH clock AS (SELECT app_now() AS now),
seat AS (
    SELECT seat_id, status, hold_id, held_by_user_id, held_until
    FROM seats WHERE seat_id = %(seat_id)s
    FOR UPDATE NOWAIT
),
held AS (
    UPDATE seats SET
        status = 'HELD', held_by_user_id = %(user_id)s, hold_id = %(hold_id)s,
        held_until = clock.now + make_interval(secs => %(ttl_seconds)s), updated_at = statement_timestamp(),
        order_id = NULL, owner_user_id = NULL, price_paid = NULL, qr_code_hash = NULL
    FROM seat, clock
    WHERE seats.seat_id = seat.seat_id
      AND (seat.status = 'AVAILABLE' OR seat.status = 'HELD' AND seat.held_until <= clock.now)
    RETURNING seats.*
),
taken_over AS (
    UPDATE effects SET outcome = 'VOIDED'
    FROM seat JOIN held USING (seat_id)
    WHERE key = 'hold:' || seat.hold_id AND outcome = 'DONE'
),
recorded AS (
    INSERT INTO effects (key, outcome, answer)
    SELECT 'hold:' || hold_id, 'DONE', jsonb_build_object(
        'seat_id', seat_id, 'hold_id', hold_id, 'event_id', event_id, 'category', category,
        'row_number', row_number, 'seat_number', seat_number, 'held_until', held_until)
    FROM held
    RETURNING answer
)
SELECT status, hold_id, held_by_user_id, (SELECT answer FROM recorded) AS answer FROM seat
"""

_LOCK = "SELECT * FROM seats WHERE seat_id = %(seat_id)s FOR UPDATE"
_CLEAR_HOLD = f"""
UPDATE seats SET {CLEARED}
WHERE seat_id = %(seat_id)s AND hold_id = %(hold_id)s AND status = 'HELD'
"""
_CLEAR_EXPIRED = _CLEAR_HOLD + " AND held_until <= app_now()"
_TIME_LEFT = """
SELECT extract(epoch FROM held_until - app_now())::float8 AS seconds FROM seats
WHERE seat_id = %(seat_id)s AND hold_id = %(hold_id)s AND status = 'HELD'
"""
_CONSUMED = """
INSERT INTO release_messages (message_id, outcome) VALUES (%(message_id)s, %(outcome)s)
ON CONFLICT (message_id) DO NOTHING
"""

# SKIP LOCKED: a seat in somebody's hands is left for the next sweep, and two replicas never wait for each other.
_SWEEP = f"""
WITH due AS (
    SELECT seat_id, hold_id FROM seats
    WHERE CASE WHEN status = 'HELD' THEN held_until END <= app_now() - make_interval(secs => %(grace_seconds)s)
    ORDER BY CASE WHEN status = 'HELD' THEN held_until END LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
),
released AS (
    UPDATE seats SET {CLEARED} FROM due
    WHERE seats.seat_id = due.seat_id AND seats.hold_id = due.hold_id AND seats.status = 'HELD'
    RETURNING seats.seat_id
),
voided AS (
    UPDATE effects SET outcome = 'VOIDED' FROM due
    WHERE key = 'hold:' || due.hold_id AND outcome = 'DONE'
)
SELECT seat_id, hold_id FROM due JOIN released USING (seat_id)
"""


@dataclass(frozen=True)
class Hold:
    """The hold that a user asks for."""

    seat_id: UUID
    user_id: UUID
    hold_id: UUID
    ttl_seconds: int


class RowLocked(effects.TransientRefusal):
    """Somebody else has the seat's row in hand this instant (NOWAIT): lost at once, and nothing is remembered."""


@dataclass(frozen=True)
class WakeUp:
    """What a wake-up message came to: RELEASED, STALE (nothing to do any more), or EARLY with the seconds left."""

    outcome: str
    seconds_left: float = 0.0


def key_of(hold_id: UUID) -> str:
    """The key of a hold's effect."""
    return f"hold:{hold_id}"


def lock(tx: Transaction, seat_id: UUID | str) -> Row:
    """The seat's row, locked; waits `lock_timeout` at most. Raises Refused SEAT_NOT_FOUND, LockNotGranted."""
    seat = tx.one(_LOCK, seat_id=seat_id)
    if seat is None:
        raise Refused(ErrorCode.SEAT_NOT_FOUND)
    return seat


def reserve(db: Database, hold: Hold) -> effects.Answer:
    """Hold a seat that is free or whose hold has expired, without waiting for its row.

    Raises Refused SEAT_NOT_FOUND, SEAT_UNAVAILABLE (with `held_by`, and `order_id` when the caller holds it already),
    SEAT_ALREADY_SOLD, STEP_VOIDED; RowLocked. The same hold_id gets the first answer again.
    """
    return effects.apply_recorded(db, key_of(hold.hold_id), lambda: _attempt(db, hold))


def _attempt(db: Database, hold: Hold) -> effects.Answer:
    try:
        seat = db.statement(
            _HOLD, seat_id=hold.seat_id, user_id=hold.user_id, hold_id=hold.hold_id, ttl_seconds=hold.ttl_seconds
        )
    except LockNotGranted:
        raise RowLocked(ErrorCode.SEAT_UNAVAILABLE) from None
    if seat is None:
        raise Refused(ErrorCode.SEAT_NOT_FOUND)
    if seat["answer"] is None:
        raise _refusal(seat, hold)
    answer: effects.Answer = {**seat["answer"], "taken_over": seat["status"] == SeatStatus.HELD}
    return answer


def _refusal(seat: Row, hold: Hold) -> Refused:
    if seat["status"] != SeatStatus.HELD:
        return Refused(ErrorCode.SEAT_ALREADY_SOLD)
    holder = seat["held_by_user_id"]
    own: dict[str, Any] = {"order_id": str(seat["hold_id"])} if holder == hold.user_id else {}
    return Refused(ErrorCode.SEAT_UNAVAILABLE, held_by=str(holder), **own)


def release(db: Database, hold_id: UUID) -> bool:
    """Take a hold back, or keep it from ever being made. True when a seat was held by it. Idempotent.

    Which seat that is stands in the hold's record: a caller who names another cannot part the two.
    """
    released = False

    def reverse(tx: Transaction, hold: effects.Answer) -> None:
        nonlocal released
        lock(tx, hold["seat_id"])
        released = tx.run(_CLEAR_HOLD, seat_id=hold["seat_id"], hold_id=hold_id) == 1

    effects.undo(db, key_of(hold_id), reverse)
    return released


def release_expired(db: Database, seat_id: UUID, hold_id: UUID, message_id: str) -> WakeUp:
    """Work off one wake-up message. One that comes early changes nothing and is not remembered.

    The same message again is STALE: its hold cannot come back, whoever holds the seat now.
    """
    with db.transaction() as tx:
        tx.one(_LOCK, seat_id=seat_id)
        if tx.run(_CLEAR_EXPIRED, seat_id=seat_id, hold_id=hold_id):
            effects.void(tx, key_of(hold_id))
            wake_up = WakeUp("RELEASED")
        elif left := tx.one(_TIME_LEFT, seat_id=seat_id, hold_id=hold_id):
            return WakeUp("EARLY", left["seconds"])
        else:
            wake_up = WakeUp("STALE")
        tx.run(_CONSUMED, message_id=message_id, outcome=wake_up.outcome)
        return wake_up


def sweep(db: Database, batch: int, grace_seconds: float) -> list[Row]:
    """Release up to `batch` holds that expired more than `grace_seconds` ago: their seat_id and hold_id."""
    with db.transaction() as tx:
        return tx.all(_SWEEP, batch=batch, grace_seconds=grace_seconds)
