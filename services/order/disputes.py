"""The dispute of a completed transfer. It is the pivot of its flow, in one transaction."""

from __future__ import annotations

import logging
from uuid import UUID

from services.chassis import effects
from services.chassis.db import Database, Row, Transaction, UniqueViolation
from services.chassis.effects import Answer
from services.chassis.errors import Refused, Unknown
from services.contracts.enums import OrderStatus, TransferStatus
from services.contracts.errors import ErrorCode
from services.order.request_models import DisputeRequest
from services.order.transfer_store import ONE_OPEN, find, invalid_state_error, to_answer

logger = logging.getLogger(__name__)

MAX_TRIES = 3

# FOR SHARE: a concurrent refund of the order either waits for this transaction or is visible to it.
_FIND_ORDER = "SELECT status FROM orders WHERE order_id = %(order_id)s FOR SHARE"
_FIND_LATER = """
    SELECT 1 FROM transfers WHERE order_id = %(order_id)s AND transfer_id <> %(transfer_id)s
      AND status IN ('COMPLETED', 'DISPUTED') AND completed_at > %(completed_at)s LIMIT 1"""
_FAIL_ONWARD = """
    UPDATE transfers SET status = 'FAILED'
    WHERE seat_id = %(seat_id)s AND status IN ('INITIATED', 'PENDING_OTP')
      AND NOT (seller_otp_verified AND buyer_otp_verified)
    RETURNING transfer_id"""
# From here on the transfer's status and its disputes do not change.
_LOCK = """
    SELECT status, dispute_count, order_id, transfer_id, completed_at, seat_id,
        %(days)s > 0 AND completed_at <= app_now() - make_interval(days => %(days)s) AS is_late
    FROM transfers WHERE transfer_id = %(transfer_id)s FOR UPDATE"""
# This does not look for a transfer initiated after _FAIL_ONWARD. The unique index rejects the dispute then, and
# `dispute` tries again.
_FIND_BLOCKING = """
    SELECT 1 FROM transfers WHERE seat_id = %(seat_id)s
      AND (status = 'DISPUTED' OR status = 'PENDING_OTP' AND seller_otp_verified AND buyer_otp_verified) LIMIT 1"""
_DISPUTE = """
    UPDATE transfers SET status = 'DISPUTED', dispute_reason = %(reason)s, dispute_count = dispute_count + 1,
        credits_frozen = 0, freeze_key = NULL
    WHERE transfer_id = %(transfer_id)s
    RETURNING *, expires_at <= app_now() AS is_expired"""


def dispute(db: Database, transfer_id: UUID, given: DisputeRequest, window_days: int) -> Answer:
    """COMPLETED → DISPUTED, and the seat's pending onward transfer → FAILED.

    Only the latest completed transfer of a CONFIRMED order can be disputed, and only while no onward transfer is
    verified by both parties. Raises Refused TRANSFER_NOT_FOUND or TRANSFER_INVALID_STATE. Raises Refused DISPUTE_CLOSED
    if the ticket was used, if staff have dismissed a dispute, or `window_days` after the completion (0: no limit).
    Raises Unknown if a new onward transfer interfered with each of `MAX_TRIES` tries.
    """
    for _ in range(MAX_TRIES):
        try:
            return effects.apply(db, given.key, lambda tx: _dispute_once(tx, transfer_id, given, window_days))
        except UniqueViolation as duplicate:  # an onward transfer was initiated meanwhile: the next try fails it
            if duplicate.constraint != ONE_OPEN:
                raise
    raise Unknown("concurrent transfers of this seat, so retry")


def _dispute_once(tx: Transaction, transfer_id: UUID, given: DisputeRequest, window_days: int) -> Answer:
    _check_order_confirmed(tx, find(tx, transfer_id))
    transfer = tx.only(_LOCK, transfer_id=transfer_id, days=window_days)
    if transfer["status"] != TransferStatus.COMPLETED:
        raise invalid_state_error(tx, transfer_id)
    _check_not_closed(transfer, given, window_days)
    _fail_onward_transfers(tx, transfer["seat_id"])
    row = tx.only(_DISPUTE, transfer_id=transfer_id, reason=given.reason)
    # This check comes last: from here on this transfer is the seat's one open one, so no other can complete meanwhile.
    _check_latest(tx, transfer)
    logger.info("Transfer %s status: COMPLETED → DISPUTED", transfer_id)
    return to_answer(row)


def _check_not_closed(transfer: Row, given: DisputeRequest, window_days: int) -> None:
    if given.is_ticket_used:
        message = "The ticket was used, so this transfer can no longer be disputed."
    elif transfer["dispute_count"]:
        message = "Staff have decided a dispute of this transfer, so it cannot be disputed again. Contact the support."
    elif transfer["is_late"]:
        message = f"A transfer can be disputed for {window_days} days after its completion. Contact the support."
    else:
        return
    raise Refused(ErrorCode.DISPUTE_CLOSED, message)


def _check_order_confirmed(tx: Transaction, transfer: Row) -> None:
    order = tx.one(_FIND_ORDER, order_id=transfer["order_id"])
    if order is None or order["status"] != OrderStatus.CONFIRMED:
        raise Refused(ErrorCode.TRANSFER_INVALID_STATE, "The order of this transfer is no longer confirmed.")


def _check_latest(tx: Transaction, transfer: Row) -> None:
    own = {name: transfer[name] for name in ("order_id", "transfer_id", "completed_at")}
    if tx.one(_FIND_LATER, **own):
        raise Refused(ErrorCode.TRANSFER_INVALID_STATE, "The ticket was transferred again after this transfer.")


def _fail_onward_transfers(tx: Transaction, seat_id: UUID) -> None:
    for failed in tx.all(_FAIL_ONWARD, seat_id=seat_id):
        logger.warning("Transfer %s status: FAILED (the previous transfer is disputed)", failed["transfer_id"])
    if tx.one(_FIND_BLOCKING, seat_id=seat_id):
        raise Refused(
            ErrorCode.TRANSFER_INVALID_STATE,
            "Another transfer of this ticket is completing or in dispute. Try again later.",
        )
