"""The code that a flagged user verifies before paying (sagas: verify-otp)."""

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
from services.order.order_store import find, not_pending

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
_MISS = """
    UPDATE orders SET otp_failures = otp_failures + 1,
        status = CASE WHEN otp_failures + 1 < %(max_attempts)s THEN status ELSE 'FAILED' END
    WHERE order_id = %(order_id)s AND status = 'PENDING' AND otp_verified_at IS NULL
    RETURNING status"""
_GIVE_BACK = "UPDATE orders SET otp_attempts = otp_attempts - 1 WHERE order_id = %(order_id)s"

_STANDING = "SELECT status, otp_verified_at, otp_attempts FROM orders WHERE order_id = %(order_id)s"


@dataclass(frozen=True)
class OrderOtp:
    """The verification of one order."""

    subject_id: UUID

    def take(self, tx: Transaction) -> Answer:
        """Take an attempt, with the sid to ask SMU about."""
        taken = tx.one(_TAKE, order_id=self.subject_id, max_attempts=MAX_ATTEMPTS)
        if taken is None:
            return self._not_taken(tx)
        attempt, sid = taken["otp_attempts"], taken["verification_sid"]
        return {"subject_id": self.subject_id, "attempt": attempt, "verified": False, "verification_sid": sid}

    def _not_taken(self, tx: Transaction) -> Answer:
        order = find(tx, self.subject_id)
        if _is_out_of_attempts(order):
            raise Refused(ErrorCode.OTP_MAX_RETRIES)
        if order["status"] != OrderStatus.PENDING:
            raise not_pending(tx, self.subject_id)
        if order["otp_verified_at"] or not order["otp_required"]:
            return {"subject_id": self.subject_id, "attempt": None, "verified": True, "verification_sid": None}
        if order["verification_sid"] is None:
            raise Refused(ErrorCode.OTP_EXPIRED)
        raise Unknown("an attempt has just been given back")  # between the two statements

    def lock(self, tx: Transaction) -> None:
        """Lock the order. Raises Refused ORDER_NOT_FOUND."""
        if tx.one(_LOCK, order_id=self.subject_id) is None:
            raise Refused(ErrorCode.ORDER_NOT_FOUND)

    def approve(self, tx: Transaction) -> Answer:
        """Verified, once. Raises Refused ORDER_FAILED when the order ended before."""
        if tx.run(_APPROVE, order_id=self.subject_id):
            logger.info("Order %s: code verified", self.subject_id)
        elif find(tx, self.subject_id)["otp_verified_at"] is None:
            raise not_pending(tx, self.subject_id)
        return self.standing(tx)

    def miss(self, tx: Transaction) -> Answer:
        """A wrong code. The third fails the order, unless it has been verified: then nothing changes."""
        missed = tx.one(_MISS, order_id=self.subject_id, max_attempts=MAX_ATTEMPTS)
        if missed and missed["status"] == OrderStatus.FAILED:
            logger.warning("Order %s status: PENDING → FAILED (three wrong codes)", self.subject_id)
        return self.standing(tx)

    def give_back(self, tx: Transaction) -> None:
        """One attempt less."""
        tx.run(_GIVE_BACK, order_id=self.subject_id)

    def standing(self, tx: Transaction) -> Answer:
        """Verified? How many attempts are left? Failed?"""
        order = tx.one(_STANDING, order_id=self.subject_id)
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
