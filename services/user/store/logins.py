"""Logins that were ended before their tokens ran out (D31 of the decisions)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from services.chassis.db import Database
from services.chassis.tokens import ACCESS_SECONDS, REFRESH_SECONDS

PAGE = 1000
# An access token that was being issued while its login was ended is a little younger than the ending.
REMEMBERED_SECONDS = ACCESS_SECONDS + 60

# Before seq is drawn, so that seq is the order of commit: a cursor that has passed a row has passed all before it.
_ONE_AT_A_TIME = "LOCK TABLE revoked_logins IN EXCLUSIVE MODE"
_FORGET = "DELETE FROM revoked_logins WHERE revoked_at < now() - make_interval(secs => %(seconds)s)"
_REVOKE = "INSERT INTO revoked_logins (sid, user_id) VALUES (%(sid)s, %(user_id)s) ON CONFLICT (sid) DO NOTHING"

_IS_REVOKED = "SELECT 1 FROM revoked_logins WHERE sid = %(sid)s"

_ROLE_IF_STANDING = """
SELECT role FROM users
WHERE user_id = %(user_id)s AND NOT EXISTS (SELECT FROM revoked_logins WHERE sid = %(sid)s)"""

_NEWEST = "SELECT coalesce(max(seq), 0) AS seq FROM revoked_logins"
_SINCE = """
SELECT seq, sid, extract(epoch FROM revoked_at - now())::float + %(remembered)s AS seconds_left
FROM revoked_logins
WHERE seq > %(after)s AND revoked_at > now() - make_interval(secs => %(remembered)s)
ORDER BY seq LIMIT %(limit)s"""


class StoredRevocations:
    """User's own answer to `chassis.access.Revocations`: it looks, so it is never stale."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def is_revoked(self, sid: str) -> bool:
        """True when the login was ended."""
        return self._db.statement(_IS_REVOKED, sid=sid) is not None

    def age(self) -> float:
        """Always 0 seconds."""
        return 0.0


def revoke(db: Database, sid: str, user_id: UUID) -> None:
    """End a login, access and refresh token alike; again is the same. Forgets those that no token is left of."""
    with db.transaction() as tx:
        tx.run(_ONE_AT_A_TIME)
        tx.run(_FORGET, seconds=REFRESH_SECONDS)
        tx.run(_REVOKE, sid=sid, user_id=user_id)


def role_if_standing(db: Database, user_id: UUID, sid: str) -> str | None:
    """The user's present role, or None when the login was ended or the user is gone."""
    found = db.statement(_ROLE_IF_STANDING, user_id=user_id, sid=sid)
    return None if found is None else str(found["role"])


def since(db: Database, after: int) -> tuple[list[dict[str, Any]], int, bool]:
    """The logins ended after the cursor `after`, the next cursor, and whether there is more.

    Each has its `sid` and `seconds_left` until it may be forgotten. Reading from the same cursor again is safe.
    """
    with db.transaction() as tx:
        newest = int(tx.only(_NEWEST)["seq"])  # first: whatever is committed after this has a higher seq
        rows = tx.all(_SINCE, after=after, remembered=REMEMBERED_SECONDS, limit=PAGE)
    more = len(rows) == PAGE
    ended = [{"sid": row["sid"], "seconds_left": round(row["seconds_left"], 3)} for row in rows]
    return ended, _cursor(rows, after, 0 if more else newest), more


def _cursor(rows: Sequence[Any], after: int, newest: int) -> int:
    return max(rows[-1]["seq"] if rows else after, newest)
