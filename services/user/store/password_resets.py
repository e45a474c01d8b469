"""Codes that reset a password. Only a phone that its account has verified gets one."""

from __future__ import annotations

from uuid import UUID

from services.chassis.db import Database, Row, Transaction

CODES_A_DAY = 5  # per account. They do not count against the codes of purchases and transfers
ATTEMPTS = 3
CODE_SECONDS = 600

_RECENT = """
ARRAY(SELECT sent FROM unnest(password_resets.sent_at) AS sent
      WHERE sent > app_now() - make_interval(days => 1) ORDER BY sent)"""

# One statement counts and takes under the row's lock, so exactly CODES_A_DAY of many concurrent calls succeed.
_TAKE = f"""
INSERT INTO password_resets (user_id, sent_at, attempts_left)
SELECT user_id, ARRAY[app_now()], %(attempts)s FROM users
WHERE email = %(email)s AND phone_verified_at IS NOT NULL AND locked_at IS NULL
ON CONFLICT (user_id) DO UPDATE SET
    sent_at = array_append({_RECENT}, app_now()), attempts_left = %(attempts)s, verification_sid = NULL
WHERE cardinality({_RECENT}) < %(limit)s
RETURNING user_id, (SELECT phone FROM users WHERE users.user_id = password_resets.user_id) AS phone"""

_STORE = "UPDATE password_resets SET verification_sid = %(verification_sid)s WHERE user_id = %(user_id)s"
_TAKE_ATTEMPT = """
UPDATE password_resets SET attempts_left = attempts_left - 1 FROM users
WHERE users.email = %(email)s AND password_resets.user_id = users.user_id AND attempts_left > 0
  AND verification_sid IS NOT NULL
  AND sent_at[cardinality(sent_at)] > app_now() - make_interval(secs => %(seconds)s)
RETURNING users.user_id, verification_sid"""
_GIVE_BACK = "UPDATE password_resets SET attempts_left = attempts_left + 1 WHERE user_id = %(user_id)s"
_CLOSE = "UPDATE password_resets SET verification_sid = NULL WHERE user_id = %(user_id)s"


def take(db: Database, email: str) -> Row | None:
    """Count a code and return the user's id and phone. None if the account may not get one now, or is unknown."""
    return db.statement(_TAKE, email=email, limit=CODES_A_DAY, attempts=ATTEMPTS)


def store(db: Database, user_id: UUID, verification_sid: str) -> None:
    """Store SMU's id of the code that was sent. It replaces the earlier one."""
    with db.transaction() as tx:
        tx.run(_STORE, user_id=user_id, verification_sid=verification_sid)


def take_attempt(db: Database, email: str) -> Row | None:
    """Count an attempt before SMU checks the code. None without a code that is valid and has attempts left."""
    return db.statement(_TAKE_ATTEMPT, email=email, seconds=CODE_SECONDS)


def give_back(db: Database, user_id: UUID) -> None:
    """Stop counting an attempt without a verdict of SMU."""
    with db.transaction() as tx:
        tx.run(_GIVE_BACK, user_id=user_id)


def close(tx: Transaction, user_id: UUID) -> None:
    """Accept the code no more."""
    tx.run(_CLOSE, user_id=user_id)
