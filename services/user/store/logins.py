"""The logins of users. Each has one valid refresh token, which a refresh replaces by the next (D71)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from services.chassis.db import Database, Row, Transaction
from services.chassis.errors import Refused
from services.chassis.tokens import REFRESH_SECONDS
from services.contracts.errors import ErrorCode
from services.user.store import revocations

# A client that lost the answer of a refresh, or that has two tabs, sends the same token again within this time.
REPEAT_SECONDS = 60

_END = "floor(extract(epoch FROM expires_at))::bigint AS expires_at"  # in seconds, never later than the login ends
# The lock makes a login either precede a change of the password, which ends it, or see the new password.
_OPEN = f"""
INSERT INTO logins (sid, user_id, refresh_id, device, expires_at)
SELECT %(sid)s, user_id, %(refresh_id)s, %(device)s, now() + make_interval(secs => %(seconds)s)
FROM users WHERE user_id = %(user_id)s AND password_hash = %(password_hash)s AND locked_at IS NULL FOR SHARE
RETURNING {_END}"""
# Those of all users, because some never log in again. It deletes more rows than a login adds, and waits for no lock. An
# access token can outlive its login, so the row stays until a lock or a logout has nothing left to revoke.
_DELETE_EXPIRED = """
DELETE FROM logins WHERE sid IN (
    SELECT sid FROM logins WHERE expires_at < now() - make_interval(secs => %(listed)s)
    ORDER BY expires_at LIMIT 4 FOR UPDATE SKIP LOCKED)"""

# One statement, so that of concurrent refreshes one rotates and the others read the token that it made.
_ROTATE = f"""
UPDATE logins SET
    previous_id = CASE WHEN refresh_id = %(token_id)s THEN refresh_id ELSE previous_id END,
    rotated_at = CASE WHEN refresh_id = %(token_id)s THEN now() ELSE rotated_at END,
    refresh_id = CASE WHEN refresh_id = %(token_id)s THEN %(next_id)s ELSE refresh_id END
FROM users
WHERE sid = %(sid)s AND users.user_id = logins.user_id AND users.locked_at IS NULL AND expires_at > now()
  AND (refresh_id = %(token_id)s
       OR (previous_id = %(token_id)s AND rotated_at > now() - make_interval(secs => %(repeat)s)))
RETURNING refresh_id, {_END}, users.role"""

_EXISTS = "SELECT 1 FROM logins WHERE sid = %(sid)s"
_LIST = """
SELECT sid, device, created_at, coalesce(rotated_at, created_at) AS used_at, expires_at
FROM logins WHERE user_id = %(user_id)s AND expires_at > now() ORDER BY created_at DESC, sid"""
_END_ALL = "DELETE FROM logins WHERE user_id = %(user_id)s AND sid <> %(kept)s RETURNING sid"
_LOCK_USER = """
UPDATE users SET locked_at = CASE WHEN %(is_locked)s THEN coalesce(locked_at, now()) END
WHERE user_id = %(user_id)s RETURNING user_id"""


def open_login(db: Database, account: Row, sid: str, device: str) -> Row | None:
    """Add a login and return the id and the end of its refresh token.

    None if the account has another password than `account` by now, or is locked.
    """
    refresh_id, user = str(uuid4()), {name: account[name] for name in ("user_id", "password_hash")}
    with db.transaction() as tx:
        added = tx.one(_OPEN, sid=sid, refresh_id=refresh_id, device=device, seconds=REFRESH_SECONDS, **user)
        tx.run(_DELETE_EXPIRED, listed=revocations.LISTED_SECONDS)
    return added and {"refresh_id": refresh_id, **added}


def rotate(db: Database, sid: str, token_id: str) -> Row | None:
    """Replace the refresh token `token_id` and return the next one with the user's current role.

    A repeat within REPEAT_SECONDS returns the same next one, unless that was used already. None if the token is no
    longer valid.
    """
    return db.statement(_ROTATE, sid=sid, token_id=token_id, next_id=str(uuid4()), repeat=REPEAT_SECONDS)


def exists(db: Database, sid: str) -> bool:
    """Whether the login has not ended."""
    return db.statement(_EXISTS, sid=sid) is not None


def list_logins(db: Database, user_id: UUID) -> list[Mapping[str, Any]]:
    """Return the logins of a user, newest first."""
    with db.transaction() as tx:
        return list(tx.all(_LIST, user_id=user_id))


def end_all(tx: Transaction, user_id: UUID, kept: str = "") -> int:
    """End every login of a user except the login `kept`, and return their number."""
    ended = [row["sid"] for row in tx.all(_END_ALL, user_id=user_id, kept=kept)]
    revocations.revoke_all(tx, ended, user_id)
    return len(ended)


def lock_user(tx: Transaction, user_id: UUID, is_locked: bool) -> None:
    """Lock or unlock an account. Raises Refused USER_NOT_FOUND."""
    if tx.one(_LOCK_USER, user_id=user_id, is_locked=is_locked) is None:
        raise Refused(ErrorCode.USER_NOT_FOUND)
