"""The SQL of transfers. Each change of status is a compare-and-set in one statement.

The partial unique index `one_open_transfer_a_seat` allows one open transfer per seat. No code checks this first.
When both parties are verified, only transfer_confirm ends the transfer. Expiry and cancel skip it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from services.chassis import effects
from services.chassis.db import Database, Row, Transaction
from services.chassis.effects import Answer
from services.chassis.errors import Refused
from services.contracts.enums import TransferStatus
from services.contracts.errors import ErrorCode
from services.order.request_models import NewTransfer, TransferChange

logger = logging.getLogger(__name__)

LIFE_SECONDS = 600  # an unconfirmed transfer then frees its seat (D16)
ONE_OPEN = "one_open_transfer_a_seat"

FIELDS = (  # the columns that callers get. Only an attempt returns a sid.
    "transfer_id",
    "seat_id",
    "order_id",
    "seller_user_id",
    "buyer_user_id",
    "initiated_by",
    "status",
    "seller_otp_verified",
    "buyer_otp_verified",
    "otp_attempts",
    "credits_amount",
    "credits_frozen",
    "freeze_key",
    "dispute_reason",
    "dispute_count",
    "created_at",
    "expires_at",
    "is_expired",
    "completed_at",
)

_CREATE = """
    INSERT INTO transfers (transfer_id, seat_id, order_id, seller_user_id, buyer_user_id, initiated_by,
                           credits_amount, expires_at)
    VALUES (%(transfer_id)s, %(seat_id)s, %(order_id)s, %(seller_user_id)s, %(buyer_user_id)s, %(initiated_by)s,
            %(credits_amount)s, app_now() + make_interval(secs => %(life)s))
    RETURNING *, expires_at <= app_now() AS is_expired"""
# FOR SHARE: a concurrent refund of the order either waits for this transaction or is visible to it.
_FIND_SALE = "SELECT status, user_id FROM orders WHERE order_id = %(order_id)s FOR SHARE"
_FIND_LAST_BUYER = """
    SELECT buyer_user_id FROM transfers WHERE order_id = %(order_id)s AND status = 'COMPLETED'
    ORDER BY completed_at DESC LIMIT 1"""
# A retry after a lost answer has sent new codes, so the latest sids replace the earlier ones.
_AWAIT_CODES = """
    UPDATE transfers SET status = 'PENDING_OTP', seller_verification_sid = %(seller_sid)s,
        buyer_verification_sid = %(buyer_sid)s
    WHERE transfer_id = %(transfer_id)s AND status IN ('INITIATED', 'PENDING_OTP')
      AND NOT seller_otp_verified AND NOT buyer_otp_verified
    RETURNING *, expires_at <= app_now() AS is_expired"""
_STORE_SIDS = """
    UPDATE transfers SET
        seller_verification_sid = CASE WHEN seller_otp_verified THEN NULL
                                       ELSE coalesce(%(seller_sid)s, seller_verification_sid) END,
        buyer_verification_sid = CASE WHEN buyer_otp_verified THEN NULL
                                      ELSE coalesce(%(buyer_sid)s, buyer_verification_sid) END
    WHERE transfer_id = %(transfer_id)s AND status = 'PENDING_OTP'
    RETURNING *, expires_at <= app_now() AS is_expired"""
# The order of completions is that of the sales of a ticket, also after the clock was set back.
_AFTER_EARLIER = """greatest(app_now(), (
        SELECT max(earlier.completed_at) + interval '1 microsecond' FROM transfers earlier
        WHERE earlier.order_id = transfers.order_id AND earlier.transfer_id <> transfers.transfer_id))"""
_COMPLETE = f"""
    UPDATE transfers SET status = 'COMPLETED', completed_at = coalesce(completed_at, {_AFTER_EARLIER})
    WHERE transfer_id = %(transfer_id)s AND status = coalesce(%(expected)s, status)
      AND (status = 'DISPUTED' OR status = 'PENDING_OTP' AND seller_otp_verified AND buyer_otp_verified)
    RETURNING *, expires_at <= app_now() AS is_expired"""
_COMPLETE_AGAIN = f"""
    UPDATE transfers SET status = 'COMPLETED', completed_at = {_AFTER_EARLIER}
    WHERE transfer_id = %(transfer_id)s AND status IN ('INITIATED', 'PENDING_OTP', 'FAILED')
    RETURNING *, expires_at <= app_now() AS is_expired"""
_REVERSE = """
    UPDATE transfers SET status = 'REVERSED' WHERE transfer_id = %(transfer_id)s AND status = 'DISPUTED'
    RETURNING *, expires_at <= app_now() AS is_expired"""
_RECORD_FREEZE = """
    UPDATE transfers SET credits_frozen = %(amount)s, freeze_key = %(freeze_key)s
    WHERE transfer_id = %(transfer_id)s AND status = 'DISPUTED' AND %(amount)s <= credits_amount
    RETURNING *, expires_at <= app_now() AS is_expired"""
_CANCEL = """
    UPDATE transfers SET status = 'FAILED'
    WHERE transfer_id = %(transfer_id)s AND status IN ('INITIATED', 'PENDING_OTP')
      AND NOT (seller_otp_verified AND buyer_otp_verified)
    RETURNING *, expires_at <= app_now() AS is_expired"""
_FAIL = """
    UPDATE transfers SET status = 'FAILED'
    WHERE transfer_id = %(transfer_id)s AND status IN ('INITIATED', 'PENDING_OTP')"""
_FAIL_OF_ORDER = """
    UPDATE transfers SET status = 'FAILED'
    WHERE order_id = %(order_id)s AND status IN ('INITIATED', 'PENDING_OTP')
      AND NOT (seller_otp_verified AND buyer_otp_verified)"""
_GET = "SELECT *, expires_at <= app_now() AS is_expired FROM transfers WHERE transfer_id = %(transfer_id)s"
# The client puts parameters into the statement before it is planned, so an absent filter costs nothing.
_LIST = """
    SELECT *, expires_at <= app_now() AS is_expired FROM transfers
    WHERE (%(seat_id)s::uuid IS NULL OR seat_id = %(seat_id)s)
      AND (%(user_id)s::uuid IS NULL OR seller_user_id = %(user_id)s OR buyer_user_id = %(user_id)s)
      AND (%(status)s::text IS NULL OR status = %(status)s)
      AND (NOT %(both_verified)s OR (seller_otp_verified AND buyer_otp_verified))
    ORDER BY created_at DESC, transfer_id DESC LIMIT %(limit)s OFFSET %(offset)s"""
_COUNT = """
    SELECT count(*) AS total FROM transfers
    WHERE (%(seat_id)s::uuid IS NULL OR seat_id = %(seat_id)s)
      AND (%(user_id)s::uuid IS NULL OR seller_user_id = %(user_id)s OR buyer_user_id = %(user_id)s)
      AND (%(status)s::text IS NULL OR status = %(status)s)
      AND (NOT %(both_verified)s OR (seller_otp_verified AND buyer_otp_verified))"""


def to_answer(row: Row) -> Answer:
    """Select the columns that callers get."""
    return {name: row[name] for name in FIELDS}


def create(tx: Transaction, transfer: NewTransfer) -> Answer:
    """Create an INITIATED transfer that expires after `LIFE_SECONDS`.

    Raises Refused SELF_TRANSFER, and UniqueViolation if the seat has an open transfer (`ONE_OPEN`) or the id exists.
    Raises Refused TRANSFER_IN_PROGRESS if the sale ended or the seller sold the ticket since the caller read the seat.
    """
    if transfer.seller_user_id == transfer.buyer_user_id:
        raise Refused(ErrorCode.SELF_TRANSFER)
    row = tx.only(
        _CREATE,
        transfer_id=transfer.transfer_id,
        seat_id=transfer.seat_id,
        order_id=transfer.order_id,
        seller_user_id=transfer.seller_user_id,
        buyer_user_id=transfer.buyer_user_id,
        initiated_by=transfer.initiated_by,
        credits_amount=transfer.credits_amount,
        life=LIFE_SECONDS,
    )
    _check_seller(tx, transfer)  # after the insert, because from there on no other transfer can complete
    logger.info("Transfer %s status: INITIATED for seat %s", transfer.transfer_id, transfer.seat_id)
    return to_answer(row)


def _check_seller(tx: Transaction, transfer: NewTransfer) -> None:
    sale = tx.one(_FIND_SALE, order_id=transfer.order_id) or {"status": "CONFIRMED", "user_id": transfer.seller_user_id}
    last = tx.one(_FIND_LAST_BUYER, order_id=transfer.order_id)
    owner = last["buyer_user_id"] if last else sale["user_id"]
    if (sale["status"], owner) != ("CONFIRMED", transfer.seller_user_id):
        message = "The ticket was transferred or refunded a moment ago. Check its owner."
        raise Refused(ErrorCode.TRANSFER_IN_PROGRESS, message)


def fail_of_order(tx: Transaction, order_id: UUID) -> None:
    """→ FAILED, for a transfer that was initiated while the order was refunded."""
    if tx.run(_FAIL_OF_ORDER, order_id=order_id):
        logger.warning("Transfer of order %s status: FAILED (refunded)", order_id)


def await_codes(tx: Transaction, transfer_id: UUID, change: TransferChange) -> Answer:
    """INITIATED → PENDING_OTP with the sids of the codes that were sent."""
    sids = {"seller_sid": change.seller_verification_sid, "buyer_sid": change.buyer_verification_sid}
    return _finish_change(tx, transfer_id, "PENDING_OTP", tx.one(_AWAIT_CODES, transfer_id=transfer_id, **sids))


def store_sids(tx: Transaction, transfer_id: UUID, change: TransferChange) -> Answer:
    """Store the sids of resent codes, except of a verified party. Needs PENDING_OTP."""
    sids = {"seller_sid": change.seller_verification_sid, "buyer_sid": change.buyer_verification_sid}
    return _finish_change(tx, transfer_id, "new codes", tx.one(_STORE_SIDS, transfer_id=transfer_id, **sids))


def complete(tx: Transaction, transfer_id: UUID, change: TransferChange) -> Answer:
    """PENDING_OTP, both verified → COMPLETED (transfer_confirm), or DISPUTED → COMPLETED (dismissal).

    A repair completes any transfer that has not taken effect.
    """
    is_repair = bool(change.is_repair) and change.expected == TransferStatus.PENDING_OTP
    row = tx.one(_COMPLETE_AGAIN if is_repair else _COMPLETE, transfer_id=transfer_id, expected=change.expected)
    return _finish_change(tx, transfer_id, "COMPLETED", row)


def reverse(tx: Transaction, transfer_id: UUID, _change: TransferChange) -> Answer:
    """DISPUTED → REVERSED."""
    return _finish_change(tx, transfer_id, "REVERSED", tx.one(_REVERSE, transfer_id=transfer_id))


def record_freeze(tx: Transaction, transfer_id: UUID, change: TransferChange) -> Answer:
    """Store the amount that a dispute froze and the key of the freeze. Needs DISPUTED."""
    frozen = {"amount": change.credits_frozen, "freeze_key": change.freeze_key}
    return _finish_change(tx, transfer_id, "credits frozen", tx.one(_RECORD_FREEZE, transfer_id=transfer_id, **frozen))


def cancel(tx: Transaction, transfer_id: UUID) -> Answer:
    """→ FAILED, while at most one party is verified. Raises Refused TRANSFER_INVALID_STATE."""
    return _finish_change(tx, transfer_id, "FAILED (cancelled)", tx.one(_CANCEL, transfer_id=transfer_id))


def _finish_change(tx: Transaction, transfer_id: UUID, change: str, row: Row | None) -> Answer:
    if row is None:
        raise invalid_state_error(tx, transfer_id)
    logger.info("Transfer %s status: %s", transfer_id, change)
    return to_answer(row)


def invalid_state_error(tx: Transaction, transfer_id: UUID) -> Refused:
    """The refusal for a transfer in the wrong status. Raises Refused TRANSFER_NOT_FOUND."""
    status = find(tx, transfer_id)["status"]
    return Refused(ErrorCode.TRANSFER_INVALID_STATE, f"The transfer is {status}, so this change is not allowed.")


def undo(db: Database, transfer_id: UUID, key: str) -> Answer:
    """Undo the step under `key`, so that it never happens and an open transfer is FAILED.

    Leaves a tombstone if the step never arrived. A transfer that is COMPLETED, DISPUTED or REVERSED does not change.
    Idempotent, never raises Refused.
    """
    effects.undo(db, key, lambda tx, _answer: _fail(tx, transfer_id))
    with db.transaction() as tx:
        _fail(tx, transfer_id)
        row = tx.one(_GET, transfer_id=transfer_id)
    return to_answer(row) if row else {"transfer_id": transfer_id, "status": None}


def _fail(tx: Transaction, transfer_id: UUID) -> None:
    if tx.run(_FAIL, transfer_id=transfer_id):
        logger.warning("Transfer %s status: FAILED (compensation)", transfer_id)


def find(tx: Transaction, transfer_id: UUID) -> Row:
    """Return the transfer's row. Raises Refused TRANSFER_NOT_FOUND."""
    row = tx.one(_GET, transfer_id=transfer_id)
    if row is None:
        raise Refused(ErrorCode.TRANSFER_NOT_FOUND)
    return row


def list_transfers(tx: Transaction, filters: Mapping[str, Any], page: int, per_page: int) -> tuple[list[Answer], int]:
    """A page of transfers, newest first, and their total.

    `filters` has seat_id, user_id (seller or buyer) and status, each may be None, and both_verified (bool).
    """
    offset = (page - 1) * per_page
    rows = [to_answer(row) for row in tx.all(_LIST, **filters, limit=per_page, offset=offset)]
    if 0 < len(rows) < per_page or (page == 1 and not rows):
        return rows, offset + len(rows)  # the last page: its offset and length give the total
    return rows, int(tx.only(_COUNT, **filters)["total"])
