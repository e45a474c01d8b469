"""Disputing a completed transfer: the pivot of the flow, in one transaction."""

from __future__ import annotations

import logging
from uuid import UUID

from services.chassis import effects
from services.chassis.db import Database, Row, Transaction, UniqueViolation
from services.chassis.effects import Answer
from services.chassis.errors import Refused, Unknown
from services.contracts.enums import OrderStatus, TransferStatus
from services.contracts.errors import ErrorCode
from services.order.transfer_store import ONE_OPEN, find, invalid_state, view

logger = logging.getLogger(__name__)

TRIES = 3

# A refund of the sale waits for this transaction, or is seen by it.
_SALE = "SELECT status FROM orders WHERE order_id = %(order_id)s FOR SHARE"
_LATER = """
    SELECT 1 FROM transfers WHERE order_id = %(order_id)s AND transfer_id <> %(transfer_id)s
      AND status IN ('COMPLETED', 'DISPUTED') AND completed_at > %(completed_at)s LIMIT 1"""
_FAIL_ONWARD = """
    UPDATE transfers SET status = 'FAILED'
    WHERE seat_id = %(seat_id)s AND status IN ('INITIATED', 'PENDING_OTP')
      AND NOT (seller_otp_verified AND buyer_otp_verified)
    RETURNING transfer_id"""
# What was initiated since the statement before is not looked for here: the unique index meets it, and we look again.
_IN_THE_WAY = """
    SELECT 1 FROM transfers WHERE seat_id = %(seat_id)s
      AND (status = 'DISPUTED' OR status = 'PENDING_OTP' AND seller_otp_verified AND buyer_otp_verified) LIMIT 1"""
_DISPUTE = """
    UPDATE transfers SET status = 'DISPUTED', dispute_reason = %(reason)s, dispute_count = dispute_count + 1,
        credits_frozen = 0, freeze_key = NULL
    WHERE transfer_id = %(transfer_id)s AND status = 'COMPLETED'
    RETURNING *, expires_at <= app_now() AS is_expired"""


def dispute(db: Database, key: str, transfer_id: UUID, reason: str) -> Answer:
    """COMPLETED → DISPUTED, and the seat's pending onward transfer → FAILED.

    Only for the latest completed transfer of its sale, while the sale stands and no onward swap is under way. Raises
    Refused TRANSFER_NOT_FOUND or TRANSFER_INVALID_STATE; Unknown when onward transfers kept being initiated meanwhile.
    """
    for _ in range(TRIES):
        try:
            return effects.apply(db, key, lambda tx: _disputed(tx, transfer_id, reason))
        except UniqueViolation as found:  # an onward transfer was initiated behind our back: look again, and fail it
            if found.constraint != ONE_OPEN:
                raise
    raise Unknown("this seat's transfers do not hold still")


def _disputed(tx: Transaction, transfer_id: UUID, reason: str) -> Answer:
    transfer = find(tx, transfer_id)
    if transfer["status"] != TransferStatus.COMPLETED:
        raise invalid_state(tx, transfer_id)
    _check_sale_stands(tx, transfer)
    _clear_way(tx, transfer["seat_id"])
    row = tx.one(_DISPUTE, transfer_id=transfer_id, reason=reason)
    if row is None:  # another dispute was faster
        raise invalid_state(tx, transfer_id)
    # Not before: only now, as the seat's one open or disputed transfer, can no other complete behind our back.
    _check_latest(tx, transfer)
    logger.info("Transfer %s status: COMPLETED → DISPUTED", transfer_id)
    return view(row)


def _check_sale_stands(tx: Transaction, transfer: Row) -> None:
    sale = tx.one(_SALE, order_id=transfer["order_id"])
    if sale is None or sale["status"] != OrderStatus.CONFIRMED:
        raise Refused(ErrorCode.TRANSFER_INVALID_STATE, "The sale that this transfer belongs to no longer stands.")


def _check_latest(tx: Transaction, transfer: Row) -> None:
    which = {name: transfer[name] for name in ("order_id", "transfer_id", "completed_at")}
    if tx.one(_LATER, **which):
        raise Refused(ErrorCode.TRANSFER_INVALID_STATE, "The ticket has been transferred again since.")


def _clear_way(tx: Transaction, seat_id: UUID) -> None:
    for failed in tx.all(_FAIL_ONWARD, seat_id=seat_id):
        logger.warning("Transfer %s status: FAILED (the one before it is disputed)", failed["transfer_id"])
    if tx.one(_IN_THE_WAY, seat_id=seat_id):
        raise Refused(ErrorCode.TRANSFER_INVALID_STATE, "The ticket is being handed over, or disputed, at this moment.")
