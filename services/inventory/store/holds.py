"""Holds: a seat is held for one user until `held_until`. The hold_id is the fencing token (D2, D3).

Each transaction that removes a hold from a seat also voids its key `hold:{hold_id}`. A late or duplicate ReserveSeat
therefore cannot restore the hold. The lock order is always the seat's row first, then the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services.chassis import effects
from services.chassis.db import Database, LockNotGranted, Row, Transaction
from services.chassis.errors import Refused
from services.contracts.enums import SeatStatus
from services.contracts.errors import ErrorCode

# The columns without a hold. `updated_at` uses the real clock, see schema.sql.
CLEARED = """status = 'AVAILABLE', held_by_user_id = NULL, held_until = NULL, hold_id = NULL,
    updated_at = statement_timestamp()"""
_LAPSED = f"{CLEARED}, lapsed_user_id = held_by_user_id, lapsed_at = held_until"

# One statement in one round trip, because many users reserve the same seat concurrently. `seat` locks the row or fails
# immediately. `held` updates it if the seat is free or its hold has expired. `taken_over` voids the key of that hold.
# The lock is on the current row, but the update starts from the row in the statement's snapshot. A sale can be
# cancelled between the two, so the update also clears the columns of the sale.
# A user may replace their own hold. Its id is compared under the lock, so a hold that was sold or released is not
# replaced. A late pay of the replaced hold finds another hold_id.
# `judged` counts the user's seats only for a seat that the user could get, so the losers of a seat do not wait for it.
_HOLD = """
WITH clock AS (SELECT app_now() AS now),
seat AS (
    SELECT seat_id, event_id, status, hold_id, held_by_user_id, held_until, lapsed_user_id, lapsed_at
    FROM seats WHERE seat_id = %(seat_id)s
    FOR UPDATE NOWAIT
),
free AS (
    SELECT seat_id, event_id,
        CASE WHEN status = 'HELD' AND held_until <= now THEN held_by_user_id ELSE lapsed_user_id END AS lapsed_user_id,
        CASE WHEN status = 'HELD' AND held_until <= now THEN held_until ELSE lapsed_at END AS lapsed_at
    FROM seat, clock
    WHERE (seat.status = 'AVAILABLE' OR seat.status = 'HELD' AND seat.held_until <= clock.now
        OR seat.status = 'HELD' AND seat.hold_id = %(replaces_hold_id)s AND seat.held_by_user_id = %(user_id)s)
),
judged AS MATERIALIZED (
    SELECT seat_id, lapsed_user_id, lapsed_at, CASE
        WHEN lapsed_user_id = %(user_id)s AND lapsed_at + make_interval(secs => %(wait_seconds)s) > now
            THEN 'HOLD_TOO_SOON'
        ELSE reached_limit(%(user_id)s, event_id, seat_id, %(max_holds)s, %(max_tickets)s)
    END AS refusal
    FROM free, clock
),
held AS (
    UPDATE seats SET
        status = 'HELD', held_by_user_id = %(user_id)s, hold_id = %(hold_id)s,
        held_until = clock.now + make_interval(secs => %(ttl_seconds)s), updated_at = statement_timestamp(),
        order_id = NULL, owner_user_id = NULL, price_paid = NULL, qr_code_hash = NULL,
        lapsed_user_id = judged.lapsed_user_id, lapsed_at = judged.lapsed_at
    FROM judged, clock
    WHERE seats.seat_id = judged.seat_id AND judged.refusal IS NULL
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
SELECT status, hold_id, held_by_user_id, (SELECT answer FROM recorded) AS answer, judged.refusal,
    ceil(extract(epoch FROM judged.lapsed_at - clock.now) + %(wait_seconds)s)::int AS seconds_to_wait
FROM clock, seat LEFT JOIN judged USING (seat_id)
"""

_LOCK = "SELECT * FROM seats WHERE seat_id = %(seat_id)s FOR UPDATE"
_OF_HOLD = "WHERE seat_id = %(seat_id)s AND hold_id = %(hold_id)s AND status = 'HELD'"
_CLEAR_HOLD = f"UPDATE seats SET {CLEARED} {_OF_HOLD}"
_CLEAR_EXPIRED = f"UPDATE seats SET {_LAPSED} {_OF_HOLD} AND held_until <= app_now()"
# Most wake-up messages are those of seats that were sold. A hold that is gone never returns, so no lock is needed.
_TIME_LEFT = f"""
WITH held AS (
    SELECT extract(epoch FROM held_until - app_now())::float8 AS seconds FROM seats {_OF_HOLD}
),
consumed AS (
    INSERT INTO release_messages (message_id, outcome) SELECT %(message_id)s, 'STALE'
    WHERE NOT EXISTS (SELECT FROM held)
    ON CONFLICT (message_id) DO NOTHING
)
SELECT seconds FROM held
"""
_CONSUMED = """
INSERT INTO release_messages (message_id, outcome) VALUES (%(message_id)s, %(outcome)s)
ON CONFLICT (message_id) DO NOTHING
"""

# SKIP LOCKED leaves a locked seat to the next sweep, so two replicas never wait for each other.
_SWEEP = f"""
WITH due AS (
    SELECT seat_id, hold_id FROM seats
    WHERE CASE WHEN status = 'HELD' THEN held_until END <= app_now() - make_interval(secs => %(grace_seconds)s)
    ORDER BY CASE WHEN status = 'HELD' THEN held_until END LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
),
released AS (
    UPDATE seats SET {_LAPSED} FROM due
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
class Limits:
    """The limits of one user in one event, unless `event_limits` has a row for it. 0 is no limit.

    `wait_seconds` pass after a hold has lapsed before the same user may hold that seat again.
    """

    max_holds: int = 6
    max_tickets: int = 8
    wait_seconds: int = 60


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Hold:
    """The hold that a user requests. It may replace a hold of the same user whose order has FAILED."""

    seat_id: UUID
    user_id: UUID
    hold_id: UUID
    ttl_seconds: int
    replaces_hold_id: UUID | None = None


class HeldByCaller(effects.TransientRefusal):
    """The user holds the seat already. The refusal is not stored, because a retry may replace that hold."""


class RowLocked(effects.TransientRefusal):
    """Another transaction locks the seat's row (NOWAIT). The refusal is not stored, so a retry may succeed."""


@dataclass(frozen=True)
class WakeUp:
    """The result of a wake-up message: RELEASED, STALE (the hold is gone), or EARLY with the remaining seconds."""

    outcome: str
    seconds_left: float = 0.0


def key_of(hold_id: UUID) -> str:
    """The key of a hold's effect."""
    return f"hold:{hold_id}"


def lock(tx: Transaction, seat_id: UUID | str) -> Row:
    """Lock the seat's row and return it. Raises Refused SEAT_NOT_FOUND, or LockNotGranted after `lock_timeout`."""
    seat = tx.one(_LOCK, seat_id=seat_id)
    if seat is None:
        raise Refused(ErrorCode.SEAT_NOT_FOUND)
    return seat


def reserve(db: Database, hold: Hold, limits: Limits = DEFAULT_LIMITS) -> effects.Answer:
    """Hold a seat that is free, has an expired hold, or has the hold that `hold` replaces. It never waits for the row.

    Raises Refused SEAT_NOT_FOUND, SEAT_ALREADY_SOLD, STEP_VOIDED, RowLocked, or SEAT_UNAVAILABLE with `held_by`.
    If the same user holds the seat, SEAT_UNAVAILABLE also has an `order_id`. Raises Refused HOLD_LIMIT_REACHED,
    TICKET_LIMIT_REACHED, or HOLD_TOO_SOON with `retry_after_seconds`. A retry gets the first answer.
    """
    return effects.apply_recorded(db, key_of(hold.hold_id), lambda: _try_hold(db, hold, limits))


def _try_hold(db: Database, hold: Hold, limits: Limits) -> effects.Answer:
    try:
        seat = db.statement(_HOLD, **vars(hold), **vars(limits))
    except LockNotGranted:
        raise RowLocked(ErrorCode.SEAT_UNAVAILABLE) from None
    if seat is None:
        raise Refused(ErrorCode.SEAT_NOT_FOUND)
    if seat["answer"] is None:
        raise _refusal(seat, hold)
    answer: effects.Answer = {**seat["answer"], "taken_over": seat["status"] == SeatStatus.HELD}
    return answer


def _refusal(seat: Row, hold: Hold) -> Refused:
    if seat["refusal"] == ErrorCode.HOLD_TOO_SOON:
        seconds = seat["seconds_to_wait"]
        message = f"Your last hold of this seat has lapsed. Wait {seconds} s, or select another seat."
        return Refused(ErrorCode.HOLD_TOO_SOON, message, retry_after_seconds=seconds)
    if seat["refusal"] == ErrorCode.HOLD_LIMIT_REACHED:
        return Refused(ErrorCode.HOLD_LIMIT_REACHED)
    if seat["refusal"] == ErrorCode.TICKET_LIMIT_REACHED:
        return Refused(ErrorCode.TICKET_LIMIT_REACHED)
    if seat["status"] != SeatStatus.HELD:
        return Refused(ErrorCode.SEAT_ALREADY_SOLD)
    holder = seat["held_by_user_id"]
    if holder == hold.user_id:
        message = "You already hold this seat. Pay the order of that hold."
        return HeldByCaller(ErrorCode.SEAT_UNAVAILABLE, message, held_by=str(holder), order_id=str(seat["hold_id"]))
    return Refused(ErrorCode.SEAT_UNAVAILABLE, held_by=str(holder))


def release(db: Database, hold_id: UUID) -> bool:
    """Release a hold, or prevent it if it was not made yet. True if it held a seat. Idempotent.

    The seat comes from the hold's record, so a caller that names another seat cannot release the wrong one.
    """
    released = False

    def reverse(tx: Transaction, hold: effects.Answer) -> None:
        nonlocal released
        lock(tx, hold["seat_id"])
        released = tx.run(_CLEAR_HOLD, seat_id=hold["seat_id"], hold_id=hold_id) == 1

    effects.undo(db, key_of(hold_id), reverse)
    return released


def release_expired(db: Database, seat_id: UUID, hold_id: UUID, message_id: str) -> WakeUp:
    """Release the seat of a wake-up message if its hold has expired. An early message changes nothing.

    A duplicate message is STALE, because the hold is gone and its void key prevents its return.
    """
    left = db.statement(_TIME_LEFT, seat_id=seat_id, hold_id=hold_id, message_id=message_id)
    if left is None:
        return WakeUp("STALE")
    if left["seconds"] > 0:
        return WakeUp("EARLY", left["seconds"])
    with db.transaction() as tx:
        tx.one(_LOCK, seat_id=seat_id)
        is_released = tx.run(_CLEAR_EXPIRED, seat_id=seat_id, hold_id=hold_id) == 1
        if is_released:
            effects.void(tx, key_of(hold_id))
        wake_up = WakeUp("RELEASED" if is_released else "STALE")
        tx.run(_CONSUMED, message_id=message_id, outcome=wake_up.outcome)
        return wake_up


def sweep(db: Database, batch: int, grace_seconds: float) -> list[Row]:
    """Release up to `batch` holds that expired more than `grace_seconds` ago. Return their seat_id and hold_id."""
    with db.transaction() as tx:
        return tx.all(_SWEEP, batch=batch, grace_seconds=grace_seconds)
