"""Attempts at a code. An attempt is taken before the call to SMU and ended once.

SMU is Singapore Management University's notification API, which checks the codes.

`otp_attempts` counts wrong codes and checks in flight. `otp_failures` counts wrong codes only.
Taking an attempt is a compare-and-set on `otp_attempts < 3`, so parallel calls cannot get a fourth guess.
The third wrong code fails the order or transfer. A third attempt does not, because its code may be right.

An attempt ends under the key that took it. The outcomes `approved` and `wrong` are stored as a second effect.
The outcomes `unknown` and `expired` undo the first. The first outcome counts, because both lock the row first.
"""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from services.chassis import effects
from services.chassis.db import Database, Transaction
from services.chassis.effects import Answer
from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode

MAX_ATTEMPTS = 3

_FIND = "SELECT outcome, answer FROM effects WHERE key = %(key)s"


class Subject(Protocol):
    """An order, or one party's side of a transfer."""

    @property
    def subject_id(self) -> UUID:
        """The order's or transfer's id."""

    def take(self, tx: Transaction) -> Answer:
        """Take an attempt. The answer has `attempt` (None if already verified) and `subject_id`."""

    def lock(self, tx: Transaction) -> None:
        """Lock the row. Raises Refused if it does not exist."""

    def approve(self, tx: Transaction) -> Answer:
        """Record a right code."""

    def reject(self, tx: Transaction) -> Answer:
        """Record a wrong code."""

    def give_back(self, tx: Transaction) -> None:
        """Stop counting the attempt."""

    def read_state(self, tx: Transaction) -> Answer:
        """Read the state of the verification. Never raises Refused, because an undo returns it too."""


def take(db: Database, key: str, subject: Subject) -> Answer:
    """Take one of the attempts.

    Raises Refused OTP_MAX_RETRIES, OTP_EXPIRED or the subject's own refusals. A retry under `key` gets the same
    attempt. If the subject is already verified, `verified` is true and no attempt is taken.
    """
    return effects.apply(db, key, subject.take)


def end(db: Database, key: str, outcome: str, subject: Subject) -> Answer:
    """Store the outcome of the attempt that was taken under `key`: approved, wrong, unknown or expired.

    Only the first outcome counts. After unknown or expired, `key` cannot take an attempt any more.
    Raises Refused STEP_VOIDED if the attempt was given back.
    """
    if outcome in ("approved", "wrong"):
        return effects.apply(db, _outcome_key(key), lambda tx: _store_verdict(tx, key, outcome, subject))
    effects.undo(db, key, lambda tx, taken: _give_back(tx, key, taken, subject))
    return db.read(subject.read_state)


def _store_verdict(tx: Transaction, key: str, outcome: str, subject: Subject) -> Answer:
    subject.lock(tx)
    if _find_attempt(tx, key, subject) is None:
        return subject.read_state(tx)
    return subject.approve(tx) if outcome == "approved" else subject.reject(tx)


def _find_attempt(tx: Transaction, key: str, subject: Subject) -> int | None:
    found = tx.one(_FIND, key=key)
    if found is not None and found["outcome"] == "VOIDED":
        raise Refused(ErrorCode.STEP_VOIDED)
    if found is None or found["answer"].get("subject_id") != str(subject.subject_id):
        raise Refused(ErrorCode.VALIDATION_ERROR, "No attempt was taken under this key.")
    attempt: int | None = found["answer"]["attempt"]
    return attempt


def _give_back(tx: Transaction, key: str, taken: Answer, subject: Subject) -> None:
    subject.lock(tx)
    verdict = tx.one(_FIND, key=_outcome_key(key))
    if taken.get("attempt") is not None and (verdict is None or verdict["outcome"] != "DONE"):
        subject.give_back(tx)


def _outcome_key(key: str) -> str:
    return f"{key}:outcome"
