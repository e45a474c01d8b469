"""The code that a flagged user verifies before the payment (docs/sagas.md, verify-otp)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from uuid import UUID

from services.chassis.db import Row, Transaction
from services.chassis.effects import Answer
from services.chassis.errors import Refused, Unknown
from services.contracts.enums import OrderStatus
from services.contracts.errors import ErrorCode
from services.order.attempts import MAX_ATTEMPTS
from services.order.order_store import find, not_pending_error

logger = logging.getLogger(__name__)

_TAKE = """
    UPDATE orders SET otp_attempts = otp_attempts + 1
    WHERE order_id = %(order_id)s AND status = 'PENDING' AND otp_required AND otp_verified_at IS NULL
      AND verification_sid IS NOT NULL AND otp_attempts < %(max_attempts)s
    RETURNING otp_attempts, verification_sid"""
_LOCK = "SELECT 1 FROM orders WHERE order_id = %(order_id)s FOR UPDATE"
_APPROVE = """
    UPDATE orders SET otp_verified_at = app_now(), verification_sid = NULL
    WHERE order_id = %(order_id)s AND status = 'PENDING' AND otp_verified_at IS NULL"""
_REJECT = """
    UPDATE orders SET otp_failures = otp_failures + 1,
        status = CASE WHEN otp_failures + 1 < %(max_attempts)s THEN status ELSE 'FAILED' END
    WHERE order_id = %(order_id)s AND status = 'PENDING' AND otp_verified_at IS NULL
    RETURNING status"""
_GIVE_BACK = "UPDATE orders SET otp_attempts = otp_attempts - 1 WHERE order_id = %(order_id)s"

_READ_STATE = "SELECT status, otp_verified_at, otp_attempts FROM orders WHERE order_id = %(order_id)s"


@dataclass(frozen=True)
class OrderOtp:
    """The verification of one order, as a `Subject` of attempts."""

    subject_id: UUID

    def take(self, tx: Transaction) -> Answer:
        """Take an attempt. The answer has the `verification_sid` for SMU."""
        taken = tx.one(_TAKE, order_id=self.subject_id, max_attempts=MAX_ATTEMPTS)
        if taken is None:
            return self._explain_no_attempt(tx)
        attempt, sid = taken["otp_attempts"], taken["verification_sid"]
        return {"subject_id": self.subject_id, "attempt": attempt, "verified": False, "verification_sid": sid}

    def _explain_no_attempt(self, tx: Transaction) -> Answer:
        order = find(tx, self.subject_id)
        if _is_out_of_attempts(order):
            raise Refused(ErrorCode.OTP_MAX_RETRIES)
        if order["status"] != OrderStatus.PENDING:
            raise not_pending_error(tx, self.subject_id)
        if order["otp_verified_at"] or not order["otp_required"]:
            return {"subject_id": self.subject_id, "attempt": None, "verified": True, "verification_sid": None}
        if order["verification_sid"] is None:
            raise Refused(ErrorCode.OTP_EXPIRED)
        raise Unknown("an attempt was given back between two statements, so retry")

    def lock(self, tx: Transaction) -> None:
        """Lock the order's row. Raises Refused ORDER_NOT_FOUND."""
        if tx.one(_LOCK, order_id=self.subject_id) is None:
            raise Refused(ErrorCode.ORDER_NOT_FOUND)

    def approve(self, tx: Transaction) -> Answer:
        """Mark the order as verified. Raises Refused ORDER_FAILED if the order failed before."""
        if tx.run(_APPROVE, order_id=self.subject_id):
            logger.info("Order %s: code verified", self.subject_id)
        elif find(tx, self.subject_id)["otp_verified_at"] is None:
            raise not_pending_error(tx, self.subject_id)
        return self.read_state(tx)

    def reject(self, tx: Transaction) -> Answer:
        """Count a wrong code. The third fails the order. Changes nothing once the order is verified."""
        order = tx.one(_REJECT, order_id=self.subject_id, max_attempts=MAX_ATTEMPTS)
        if order and order["status"] == OrderStatus.FAILED:
            logger.warning("Order %s status: PENDING → FAILED (three wrong codes)", self.subject_id)
        return self.read_state(tx)

    def give_back(self, tx: Transaction) -> None:
        """Decrement `otp_attempts`."""
        tx.run(_GIVE_BACK, order_id=self.subject_id)

    def read_state(self, tx: Transaction) -> Answer:
        """Read whether the order is verified or failed, and how many attempts are left."""
        order = tx.one(_READ_STATE, order_id=self.subject_id)
        if order is None:
            return {"verified": False, "attempts_left": 0, "failed": False, "status": None}
        return {
            "verified": order["otp_verified_at"] is not None,
            "attempts_left": MAX_ATTEMPTS - order["otp_attempts"],
            "failed": order["status"] == OrderStatus.FAILED,
            "status": order["status"],
        }


def _is_out_of_attempts(order: Row) -> bool:
    if order["status"] == OrderStatus.FAILED:
        return bool(order["otp_failures"] >= MAX_ATTEMPTS)
    pending = order["status"] == OrderStatus.PENDING and order["otp_verified_at"] is None
    return bool(pending and order["otp_attempts"] >= MAX_ATTEMPTS)
