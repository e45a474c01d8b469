"""The codes that both parties of a transfer verify (docs/sagas.md, transfer_confirm).

One party may enter both codes. Three wrong codes of one caller fail the transfer, so a caller uses up no attempt of the
other party. A wrong code of the other party also counts against the caller for a day, over all transfers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.chassis import limits
from services.chassis.db import Row, Transaction
from services.chassis.effects import Answer
from services.chassis.errors import Refused, Unknown
from services.chassis.limits import Count, Limit
from services.contracts.enums import TransferStatus
from services.contracts.errors import ErrorCode
from services.order.attempts import MAX_ATTEMPTS
from services.order.transfer_store import find, invalid_state_error

logger = logging.getLogger(__name__)

DAY_SECONDS = 24 * 3600

# `otp_attempts` and `otp_failures` count the codes that the seller enters, `buyer_otp_*` those that the buyer enters.
_OWN_ID = "CASE %(party)s WHEN 'SELLER' THEN seller_user_id ELSE buyer_user_id END"
_CALLER = f"coalesce(%(caller_id)s, {_OWN_ID})"
_OF_CALLER = f"CASE {_CALLER} WHEN seller_user_id THEN otp_attempts WHEN buyer_user_id THEN buyer_otp_attempts END"
_TAKE = f"""
    UPDATE transfers SET otp_attempts = otp_attempts + (seller_user_id = {_CALLER})::int,
        buyer_otp_attempts = buyer_otp_attempts + (buyer_user_id = {_CALLER})::int
    WHERE transfer_id = %(transfer_id)s AND status = 'PENDING_OTP' AND expires_at > app_now()
      AND NOT CASE %(party)s WHEN 'SELLER' THEN seller_otp_verified ELSE buyer_otp_verified END
      AND {_OF_CALLER} < %(max_attempts)s
    RETURNING {_OF_CALLER} AS attempt,
        CASE %(party)s WHEN 'SELLER' THEN seller_verification_sid ELSE buyer_verification_sid END AS sid"""
_LOCK = "SELECT 1 FROM transfers WHERE transfer_id = %(transfer_id)s FOR UPDATE"
# A right code gives its attempt back, because only the three wrong codes count.
_APPROVE = f"""
    UPDATE transfers SET otp_attempts = otp_attempts - (seller_user_id = {_CALLER})::int,
        buyer_otp_attempts = buyer_otp_attempts - (buyer_user_id = {_CALLER})::int,
        seller_otp_verified = seller_otp_verified OR %(party)s = 'SELLER',
        buyer_otp_verified = buyer_otp_verified OR %(party)s = 'BUYER',
        seller_verification_sid = CASE WHEN %(party)s <> 'SELLER' THEN seller_verification_sid END,
        buyer_verification_sid = CASE WHEN %(party)s <> 'BUYER' THEN buyer_verification_sid END
    WHERE transfer_id = %(transfer_id)s AND status = 'PENDING_OTP'"""
_REJECT = f"""
    UPDATE transfers SET otp_failures = otp_failures + (seller_user_id = {_CALLER})::int,
        buyer_otp_failures = buyer_otp_failures + (buyer_user_id = {_CALLER})::int,
        status = CASE WHEN CASE {_CALLER} WHEN seller_user_id THEN otp_failures ELSE buyer_otp_failures END + 1
                           < %(max_attempts)s THEN status ELSE 'FAILED' END
    WHERE transfer_id = %(transfer_id)s AND status = 'PENDING_OTP'
      AND NOT (seller_otp_verified AND buyer_otp_verified)
    RETURNING status"""
_GIVE_BACK = f"""
    UPDATE transfers SET otp_attempts = otp_attempts - (seller_user_id = {_CALLER})::int,
        buyer_otp_attempts = buyer_otp_attempts - (buyer_user_id = {_CALLER})::int
    WHERE transfer_id = %(transfer_id)s"""
_READ_STATE = f"""
    SELECT status, seller_otp_verified, buyer_otp_verified,
        coalesce({_OF_CALLER}, %(max_attempts)s) AS attempts  -- a stranger has none left
    FROM transfers WHERE transfer_id = %(transfer_id)s"""
_NO_TRANSFER = {"status": None, "seller_otp_verified": False, "buyer_otp_verified": False, "attempts": MAX_ATTEMPTS}
_IS_OWN_CODE = f"SELECT {_CALLER} = {_OWN_ID} AS is_own FROM transfers WHERE transfer_id = %(transfer_id)s"


@dataclass(frozen=True)
class TransferOtp:
    """The verification of one party ("SELLER" or "BUYER") of a transfer, as a `Subject` of attempts.

    `caller_id` is the user who enters the code, or None for the party itself. `wrong_codes_per_day` limits the wrong
    codes of other users that this user enters.
    """

    subject_id: UUID
    party: str
    caller_id: UUID | None
    wrong_codes_per_day: int

    def take(self, tx: Transaction) -> Answer:
        """Take an attempt. The answer has the `verification_sid` for SMU.

        Raises Refused RATE_LIMITED after too many wrong codes of other users.
        """
        taken = tx.one(_TAKE, **self._params, max_attempts=MAX_ATTEMPTS)
        if taken is None:
            return self._explain_no_attempt(tx)
        limits.take(tx, *self._list_counts(tx))
        attempt = {"attempt": taken["attempt"], "verification_sid": taken["sid"]}
        return {"subject_id": self.subject_id, **self.read_state(tx), **attempt}

    @property
    def _params(self) -> dict[str, Any]:
        return {"transfer_id": self.subject_id, "party": self.party, "caller_id": self.caller_id}

    def _list_counts(self, tx: Transaction) -> list[Count]:
        """The counts of a wrong code apart from the transfer's. A caller's own code has none."""
        if tx.only(_IS_OWN_CODE, **self._params)["is_own"]:
            return []
        limit = Limit(self.wrong_codes_per_day, DAY_SECONDS)
        what = "wrong codes of other users. Enter only your own code. The other party must enter the other one"
        return [Count(f"wrong-code-of-another:{self.caller_id}", limit, what)]

    def _explain_no_attempt(self, tx: Transaction) -> Answer:
        transfer = find(tx, self.subject_id)
        failures = max(transfer["otp_failures"], transfer["buyer_otp_failures"])
        if self.caller_id not in (None, transfer["seller_user_id"], transfer["buyer_user_id"]):
            raise Refused(ErrorCode.FORBIDDEN)
        if transfer["status"] == TransferStatus.FAILED and failures >= MAX_ATTEMPTS:
            raise Refused(ErrorCode.OTP_MAX_RETRIES)
        if transfer["status"] != TransferStatus.PENDING_OTP:
            raise invalid_state_error(tx, self.subject_id)
        if self._is_verified(transfer):
            return {"subject_id": self.subject_id, **self.read_state(tx), "attempt": None, "verification_sid": None}
        if transfer["is_expired"]:
            raise Refused(ErrorCode.TRANSFER_INVALID_STATE, "The transfer has expired. Start a new one.")
        if not self.read_state(tx)["attempts_left"]:
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
        if not tx.run(_APPROVE, **self._params):
            raise invalid_state_error(tx, self.subject_id)
        self._forget_wrong_code(tx)
        logger.info("Transfer %s: code of the %s verified", self.subject_id, self.party.lower())
        return self.read_state(tx)

    def reject(self, tx: Transaction) -> Answer:
        """Count a wrong code. The caller's third fails the transfer. Changes nothing once both parties are verified."""
        transfer = tx.one(_REJECT, **self._params, max_attempts=MAX_ATTEMPTS)
        if transfer and transfer["status"] == TransferStatus.FAILED:
            logger.warning("Transfer %s status: PENDING_OTP → FAILED (three wrong codes)", self.subject_id)
        return self.read_state(tx)

    def give_back(self, tx: Transaction) -> None:
        """Stop counting the attempt, for the transfer and for the caller's day."""
        tx.run(_GIVE_BACK, **self._params)
        self._forget_wrong_code(tx)

    def _forget_wrong_code(self, tx: Transaction) -> None:
        for count in self._list_counts(tx):
            limits.give_latest_back(tx, count.key)

    def read_state(self, tx: Transaction) -> Answer:
        """Read which parties are verified, how many attempts the caller has left, and whether the transfer failed."""
        transfer: Mapping[Any, Any] = tx.one(_READ_STATE, **self._params, max_attempts=MAX_ATTEMPTS) or _NO_TRANSFER
        return {
            "verified": transfer[f"{self.party.lower()}_otp_verified"],
            "seller_otp_verified": transfer["seller_otp_verified"],
            "buyer_otp_verified": transfer["buyer_otp_verified"],
            "attempts_left": MAX_ATTEMPTS - transfer["attempts"],
            "failed": transfer["status"] == TransferStatus.FAILED,
            "status": transfer["status"],
        }
