"""The codes that both parties of a transfer verify (docs/sagas.md, transfer_confirm).

Three wrong codes of both parties together fail the transfer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.chassis.db import Row, Transaction
from services.chassis.effects import Answer
from services.chassis.errors import Refused, Unknown
from services.contracts.enums import TransferStatus
from services.contracts.errors import ErrorCode
from services.order.attempts import MAX_ATTEMPTS
from services.order.transfer_store import find, invalid_state_error

logger = logging.getLogger(__name__)

_TAKE = """
    UPDATE transfers SET otp_attempts = otp_attempts + 1
    WHERE transfer_id = %(transfer_id)s AND status = 'PENDING_OTP' AND expires_at > app_now()
      AND NOT CASE %(party)s WHEN 'SELLER' THEN seller_otp_verified ELSE buyer_otp_verified END
      AND otp_attempts < %(max_attempts)s
    RETURNING otp_attempts, CASE %(party)s WHEN 'SELLER' THEN seller_verification_sid ELSE buyer_verification_sid END
        AS sid"""
_LOCK = "SELECT 1 FROM transfers WHERE transfer_id = %(transfer_id)s FOR UPDATE"
# A right code gives its attempt back, because only the three wrong codes count.
_APPROVE = """
    UPDATE transfers SET otp_attempts = otp_attempts - 1,
        seller_otp_verified = seller_otp_verified OR %(party)s = 'SELLER',
        buyer_otp_verified = buyer_otp_verified OR %(party)s = 'BUYER',
        seller_verification_sid = CASE WHEN %(party)s <> 'SELLER' THEN seller_verification_sid END,
        buyer_verification_sid = CASE WHEN %(party)s <> 'BUYER' THEN buyer_verification_sid END
    WHERE transfer_id = %(transfer_id)s AND status = 'PENDING_OTP'"""
_REJECT = """
    UPDATE transfers SET otp_failures = otp_failures + 1,
        status = CASE WHEN otp_failures + 1 < %(max_attempts)s THEN status ELSE 'FAILED' END
    WHERE transfer_id = %(transfer_id)s AND status = 'PENDING_OTP'
      AND NOT (seller_otp_verified AND buyer_otp_verified)
    RETURNING status"""
_GIVE_BACK = "UPDATE transfers SET otp_attempts = otp_attempts - 1 WHERE transfer_id = %(transfer_id)s"
_READ_STATE = """
    SELECT status, seller_otp_verified, buyer_otp_verified, otp_attempts FROM transfers
    WHERE transfer_id = %(transfer_id)s"""
_NO_TRANSFER = {"status": None, "seller_otp_verified": False, "buyer_otp_verified": False, "otp_attempts": MAX_ATTEMPTS}


@dataclass(frozen=True)
class TransferOtp:
    """The verification of one party ("SELLER" or "BUYER") of a transfer, as a `Subject` of attempts."""

    subject_id: UUID
    party: str

    def take(self, tx: Transaction) -> Answer:
        """Take an attempt. The answer has the `verification_sid` for SMU."""
        taken = tx.one(_TAKE, transfer_id=self.subject_id, party=self.party, max_attempts=MAX_ATTEMPTS)
        if taken is None:
            return self._explain_no_attempt(tx)
        attempt = {"attempt": taken["otp_attempts"], "verification_sid": taken["sid"]}
        return {"subject_id": self.subject_id, **self.read_state(tx), **attempt}

    def _explain_no_attempt(self, tx: Transaction) -> Answer:
        transfer = find(tx, self.subject_id)
        if transfer["status"] == TransferStatus.FAILED and transfer["otp_failures"] >= MAX_ATTEMPTS:
            raise Refused(ErrorCode.OTP_MAX_RETRIES)
        if transfer["status"] != TransferStatus.PENDING_OTP:
            raise invalid_state_error(tx, self.subject_id)
        if self._is_verified(transfer):
            return {"subject_id": self.subject_id, **self.read_state(tx), "attempt": None, "verification_sid": None}
        if transfer["is_expired"]:
            raise Refused(ErrorCode.TRANSFER_INVALID_STATE, "The transfer has expired. Start a new one.")
        if transfer["otp_attempts"] >= MAX_ATTEMPTS:
            raise Refused(ErrorCode.OTP_MAX_RETRIES)
        raise Unknown("an attempt was given back between two statements, so retry")

    def _is_verified(self, transfer: Row) -> bool:
        return bool(transfer[f"{self.party.lower()}_otp_verified"])

    def lock(self, tx: Transaction) -> None:
        """Lock the transfer's row. Raises Refused TRANSFER_NOT_FOUND."""
        if tx.one(_LOCK, transfer_id=self.subject_id) is None:
            raise Refused(ErrorCode.TRANSFER_NOT_FOUND)

    def approve(self, tx: Transaction) -> Answer:
        """Mark this party as verified. Raises Refused TRANSFER_INVALID_STATE if the transfer ended before."""
        if not tx.run(_APPROVE, transfer_id=self.subject_id, party=self.party):
            raise invalid_state_error(tx, self.subject_id)
        logger.info("Transfer %s: code of the %s verified", self.subject_id, self.party.lower())
        return self.read_state(tx)

    def reject(self, tx: Transaction) -> Answer:
        """Count a wrong code. The third fails the transfer. Changes nothing once both parties are verified."""
        transfer = tx.one(_REJECT, transfer_id=self.subject_id, max_attempts=MAX_ATTEMPTS)
        if transfer and transfer["status"] == TransferStatus.FAILED:
            logger.warning("Transfer %s status: PENDING_OTP → FAILED (three wrong codes)", self.subject_id)
        return self.read_state(tx)

    def give_back(self, tx: Transaction) -> None:
        """Decrement `otp_attempts`."""
        tx.run(_GIVE_BACK, transfer_id=self.subject_id)

    def read_state(self, tx: Transaction) -> Answer:
        """Read which parties are verified, how many attempts are left, and whether the transfer failed."""
        transfer: Mapping[Any, Any] = tx.one(_READ_STATE, transfer_id=self.subject_id) or _NO_TRANSFER
        return {
            "verified": transfer[f"{self.party.lower()}_otp_verified"],
            "seller_otp_verified": transfer["seller_otp_verified"],
            "buyer_otp_verified": transfer["buyer_otp_verified"],
            "attempts_left": MAX_ATTEMPTS - transfer["otp_attempts"],
            "failed": transfer["status"] == TransferStatus.FAILED,
            "status": transfer["status"],
        }
