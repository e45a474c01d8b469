"""Codes: an attempt is taken before the code is checked, and given back when nobody could say (rule verify-otp).

Taking first is what stops twenty parallel guesses: three attempts exist, whoever asks, however fast.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from services.chassis.errors import Refused, Unknown
from services.contracts.enums import OtpStatus
from services.contracts.errors import ErrorCode
from services.orchestrator.participants import Participants
from services.orchestrator.saga.retry import ask

Closed = Mapping[str, Any]
CLOSING_SECONDS = 1.0  # of the time there is, kept for saying how the attempt went; and as much again
_OUTCOMES = {OtpStatus.APPROVED: "approved", OtpStatus.PENDING: "wrong", OtpStatus.EXPIRED: "expired"}


class OtpDesk:
    """Takes codes for orders and transfers."""

    def __init__(self, participants: Participants, ask_seconds: float) -> None:
        self._users = participants.users
        self._orders = participants.orders
        self._ask_seconds = ask_seconds

    def check(self, of: str, otp_code: str, **party: str) -> Closed:
        """Check a code for `of` (`orders/{id}` or `transfers/{id}`, with `party=SELLER|BUYER`).

        Answers what the owner recorded. Raises Refused OTP_INVALID, OTP_EXPIRED, OTP_MAX_RETRIES, or what taking an
        attempt was refused with; Unknown when SMU does not answer, and then no attempt is lost.
        """
        key = f"verify_otp:{of}:{uuid4()}:check"
        deadline = time.monotonic() + self._ask_seconds
        taken = ask(lambda: self._orders.take_attempt(of, key, **party), deadline)
        if taken.get("verified"):
            return taken
        outcome = self._outcome(taken["verification_sid"], otp_code, deadline)
        closed = ask(lambda: self._orders.close_attempt(of, key, outcome, **party), deadline + CLOSING_SECONDS)
        return _understood(outcome, closed)

    def _outcome(self, sid: str | None, otp_code: str, deadline: float) -> str:
        if not sid:
            return "expired"
        try:
            return _OUTCOMES[OtpStatus(ask(lambda: self._users.verify_otp(sid, otp_code), deadline - CLOSING_SECONDS))]
        except Unknown:
            return "unknown"

    def send(self, of: str, user_id: str | UUID, sid_field: str) -> None:
        """Send a fresh code and store its sid. Raises Refused RATE_LIMITED, or what storing was refused with."""
        sid = self._users.send_otp(str(user_id))
        deadline = time.monotonic() + self._ask_seconds
        kind, _, subject = of.partition("/")
        change = self._orders.change if kind == "orders" else self._orders.change_transfer
        ask(lambda: change(subject, f"resend_otp:{of}:{sid}", **{sid_field: sid}), deadline)


def _understood(outcome: str, closed: Closed) -> Closed:
    if outcome == "unknown":
        raise Unknown("The code could not be checked; no attempt was used. Try again shortly.")
    if closed.get("failed"):
        raise Refused(ErrorCode.OTP_MAX_RETRIES)
    if outcome == "expired":
        raise Refused(ErrorCode.OTP_EXPIRED)
    if outcome == "wrong":
        raise Refused(ErrorCode.OTP_INVALID, attempts_left=closed.get("attempts_left", 0))
    return closed
