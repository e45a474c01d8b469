"""Attempts at a code: taken before SMU is asked, and ended once.

`otp_attempts` counts wrong codes and those in flight, `otp_failures` the wrong ones. Taking one is a compare-and-set
on `otp_attempts < 3`, so that no number of parallel calls buys a fourth guess. What fails an order or a transfer is
the third *wrong* code, not the third attempt: one still in flight may yet turn out right.

An attempt ends under the key that took it. `approved` and `wrong` are stored as an effect of their own beside it;
`unknown` and `expired` undo the taking. The first ending stands: both look under the row's lock.
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
    """What is being verified: an order, or one party's side of a transfer."""

    @property
    def subject_id(self) -> UUID:
        """The order's or transfer's id."""

    def take(self, tx: Transaction) -> Answer:
        """Take an attempt; its answer says `attempt` (None: verified already) and `subject_id`."""

    def lock(self, tx: Transaction) -> None:
        """Lock the row. Raises Refused when there is none."""

    def approve(self, tx: Transaction) -> Answer:
        """The code was right."""

    def miss(self, tx: Transaction) -> Answer:
        """The code was wrong."""

    def give_back(self, tx: Transaction) -> None:
        """The attempt does not count."""

    def standing(self, tx: Transaction) -> Answer:
        """Where the verification stands; never refused, for an undo reports it too."""


def take(db: Database, key: str, subject: Subject) -> Answer:
    """Take one of the attempts. Raises Refused OTP_MAX_RETRIES, OTP_EXPIRED or the subject's own refusals.

    Asked again under the same key it is the same attempt. Verified already: `verified` is true, no attempt is taken.
    """
    return effects.apply(db, key, subject.take)


def end(db: Database, key: str, outcome: str, subject: Subject) -> Answer:
    """Say how the attempt that was taken under `key` went: approved, wrong, unknown or expired.

    The first ending stands, whatever is said later. An attempt given back (unknown, expired) before it was taken can
    no longer be taken. Raises Refused STEP_VOIDED when the attempt was given back.
    """
    if outcome in ("approved", "wrong"):
        return effects.apply(db, _ending(key), lambda tx: _settled(tx, key, outcome, subject))
    effects.undo(db, key, lambda tx, taken: _give_back(tx, key, taken, subject))
    return db.read(subject.standing)


def _settled(tx: Transaction, key: str, outcome: str, subject: Subject) -> Answer:
    subject.lock(tx)
    if _taken(tx, key, subject) is None:
        return subject.standing(tx)
    return subject.approve(tx) if outcome == "approved" else subject.miss(tx)


def _taken(tx: Transaction, key: str, subject: Subject) -> int | None:
    found = tx.one(_FIND, key=key)
    if found is not None and found["outcome"] == "VOIDED":
        raise Refused(ErrorCode.STEP_VOIDED)
    if found is None or found["answer"].get("subject_id") != str(subject.subject_id):
        raise Refused(ErrorCode.VALIDATION_ERROR, "No attempt was taken under this key.")
    attempt: int | None = found["answer"]["attempt"]
    return attempt


def _give_back(tx: Transaction, key: str, taken: Answer, subject: Subject) -> None:
    subject.lock(tx)
    ended = tx.one(_FIND, key=_ending(key))
    if taken.get("attempt") is not None and (ended is None or ended["outcome"] != "DONE"):
        subject.give_back(tx)


def _ending(key: str) -> str:
    return f"{key}:outcome"
