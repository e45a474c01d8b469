"""One-time codes: an attempt is taken before SMU checks the code, and returned if SMU gives no verdict.

SMU is Singapore Management University's notification API. Taking the attempt first stops parallel guesses, because
only three attempts exist for all requests.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from services.chassis.clean_ups import CleanUps
from services.chassis.errors import Refused, Unknown
from services.contracts.enums import OtpStatus
from services.contracts.errors import ErrorCode
from services.orchestrator.participants import Participants
from services.orchestrator.saga.retry import retry_until

Attempt = Mapping[str, Any]  # the fields of the order or transfer after the attempt
CLOSING_SECONDS = 1.0  # reserved before the deadline for recording the outcome, and added after it
_OUTCOMES = {OtpStatus.APPROVED: "approved", OtpStatus.PENDING: "wrong", OtpStatus.EXPIRED: "expired"}

_SEPARATORS = re.compile(r"[\s-]+")
_CODE = re.compile(r"[0-9]{4,10}")


def read_otp_code(text: str) -> str:
    """The digits of a code that a user typed with or without blanks and hyphens. Raises ValueError."""
    code = _SEPARATORS.sub("", text)
    if not _CODE.fullmatch(code):
        raise ValueError("a code must have 4 to 10 digits")
    return code


class OtpService:
    """Verifies and resends the codes of orders and transfers."""

    def __init__(self, participants: Participants, retry_seconds: float, clean_ups: CleanUps) -> None:
        self._users = participants.users
        self._orders = participants.orders
        self._retry_seconds = retry_seconds
        self._clean_ups = clean_ups

    def verify(self, target: str, otp_code: str, own_user_id: str | None = None, **party: str) -> Attempt:
        """Verify a code of `target`: `orders/{id}`, or `transfers/{id}` with `party=SELLER|BUYER` and `caller_id`.

        `own_user_id` is the caller if it is the caller's own code.

        Returns the fields that the Order service recorded. Raises Refused OTP_INVALID, OTP_EXPIRED, OTP_MAX_RETRIES
        or the refusal of taking an attempt. Raises Unknown when SMU does not answer, and then no attempt is used.
        """
        key = f"verify_otp:{target}:{uuid4()}:check"
        deadline = time.monotonic() + self._retry_seconds
        taken = retry_until(deadline, lambda: self._orders.take_attempt(target, key, **party))
        if taken.get("verified"):
            return taken
        outcome = self._check_code(taken["verification_sid"], otp_code, own_user_id, deadline)
        close = lambda: self._orders.close_attempt(target, key, outcome, **party)  # noqa: E731
        try:
            closed = retry_until(deadline + CLOSING_SECONDS, close, insist=math.inf)
        except Unknown:
            self._clean_ups.add(close)  # otherwise the attempt would stay taken
            raise
        _require_approved(outcome, closed)
        return closed

    def _check_code(self, sid: str | None, otp_code: str, own_user_id: str | None, deadline: float) -> str:
        if not sid:
            return "expired"
        try:
            owner = {} if own_user_id is None else {"user_id": own_user_id}
            status = retry_until(deadline - CLOSING_SECONDS, lambda: self._users.verify_otp(sid, otp_code, **owner))
        except Unknown:
            return "unknown"
        return _OUTCOMES[OtpStatus(status)]

    def resend(self, target: str, user_id: str | UUID, sid_field: str) -> None:
        """Send a new code and store its sid. Raises Refused RATE_LIMITED, or the refusal of storing the sid."""
        sid = self._users.send_otp(str(user_id), str(user_id))
        deadline = time.monotonic() + self._retry_seconds
        kind, _, subject = target.partition("/")
        change = self._orders.change if kind == "orders" else self._orders.change_transfer
        store = lambda: change(subject, f"resend_otp:{target}:{sid}", **{sid_field: sid})  # noqa: E731
        retry_until(deadline, store, insist=math.inf)  # the code is on its way


def _require_approved(outcome: str, closed: Attempt) -> None:
    if outcome == "unknown":
        raise Unknown("The code could not be checked, and no attempt was used. Try again shortly.")
    if closed.get("failed"):
        raise Refused(ErrorCode.OTP_MAX_RETRIES)
    if outcome == "expired":
        raise Refused(ErrorCode.OTP_EXPIRED)
    if outcome == "wrong":
        raise Refused(ErrorCode.OTP_INVALID, attempts_left=closed.get("attempts_left", 0))
