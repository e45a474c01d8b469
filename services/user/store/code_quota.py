"""Limits on the codes to a phone. A transfer sends a code and a notice to each party, and one count is for both.

The owner's own requests have a quota that no other user can use up. Codes that other users cause have a second quota
of the phone, and count against the user who caused them.
"""

from __future__ import annotations

from uuid import UUID

from services.chassis import limits
from services.chassis.db import Database
from services.chassis.errors import Refused
from services.chassis.limits import Count, Counted, Limit
from services.contracts.errors import ErrorCode
from services.user.settings import Limits

PHONE_SECONDS = 600
INITIATOR_SECONDS = 3600
TO_ONE_PHONE = 3  # of one initiator in PHONE_SECONDS

# A phone belongs to the accounts that have entered one of its codes. Without such an account, it belongs to all.
_FIND_PHONE = """
SELECT phone, phone_verified_at IS NOT NULL OR NOT EXISTS (
    SELECT FROM users other WHERE other.phone = users.phone AND other.phone_verified_at IS NOT NULL) AS is_owner
FROM users WHERE user_id = %(user_id)s"""
_VERIFY_PHONE = """
UPDATE users SET phone_verified_at = app_now() WHERE user_id = %(user_id)s AND phone_verified_at IS NULL
RETURNING user_id"""


class CodeQuota:
    """The limits of codes, counted in the database."""

    def __init__(self, db: Database, limits: Limits) -> None:
        self._db = db
        self._limits = limits

    def take(self, user_id: UUID, initiator_id: UUID) -> tuple[str, list[Counted]]:
        """Count a code that `initiator_id` causes. Returns the phone of `user_id`, and what was counted.

        Raises Refused USER_NOT_FOUND, or RATE_LIMITED with `retry_after` in seconds.
        """
        with self._db.transaction() as tx:
            user = tx.one(_FIND_PHONE, user_id=user_id)
            if user is None:
                raise Refused(ErrorCode.USER_NOT_FOUND)
            is_own = initiator_id == user_id and user["is_owner"]
            counts = self._count_own(user["phone"]) if is_own else self._count_others(user["phone"], initiator_id)
            counted = limits.take(tx, *counts)
        return user["phone"], counted

    def give_back(self, counted: list[Counted]) -> None:
        """Stop counting a code that was certainly not sent. Idempotent."""
        with self._db.transaction() as tx:
            limits.give_back(tx, *counted)

    def verify_phone(self, user_id: UUID) -> bool:
        """Record that the account has entered a code of its phone. False if it had done so before."""
        return self._db.statement(_VERIFY_PHONE, user_id=user_id) is not None

    def _count_own(self, phone: str) -> list[Count]:
        return [Count(f"code:{phone}", Limit(self._limits.codes_per_phone, PHONE_SECONDS), "codes")]

    def _count_others(self, phone: str, initiator_id: UUID) -> list[Count]:
        return [
            Count(f"code-of-others:{phone}", Limit(self._limits.codes_of_others, PHONE_SECONDS), "codes to this user"),
            Count(f"code-by:{initiator_id}:{phone}", Limit(TO_ONE_PHONE, PHONE_SECONDS), "codes to this user"),
            Count(
                f"code-by:{initiator_id}",
                Limit(self._limits.codes_to_others, INITIATOR_SECONDS),
                "codes to other users",
            ),
        ]
