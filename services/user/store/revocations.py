"""Sessions that were revoked before their tokens expired (D31 of the decisions)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from services.chassis.db import Database, Row, Transaction
from services.chassis.tokens import ACCESS_SECONDS, CLOCK_LEEWAY_SECONDS, REFRESH_SECONDS

PAGE = 1000
# A token that was issued during the logout ends a little later than one lifetime after it. Verifiers add the leeway.
_MARGIN_SECONDS = CLOCK_LEEWAY_SECONDS + 60
LISTED_SECONDS = ACCESS_SECONDS + _MARGIN_SECONDS
KEPT_SECONDS = REFRESH_SECONDS + _MARGIN_SECONDS

# The lock comes before seq is drawn, so seq is the order of commit. A cursor after a row has then skipped no row.
_LOCK_TABLE = "LOCK TABLE revoked_logins IN EXCLUSIVE MODE"
_DELETE_OLD = "DELETE FROM revoked_logins WHERE revoked_at < now() - make_interval(secs => %(seconds)s)"
_REVOKE = "INSERT INTO revoked_logins (sid, user_id) VALUES (%(sid)s, %(user_id)s) ON CONFLICT (sid) DO NOTHING"

_IS_REVOKED = "SELECT 1 FROM revoked_logins WHERE sid = %(sid)s"

_ROLE_UNLESS_REVOKED = """
SELECT role FROM users
WHERE user_id = %(user_id)s AND NOT EXISTS (SELECT FROM revoked_logins WHERE sid = %(sid)s)"""

_LAST_SEQ = "SELECT coalesce(max(seq), 0) AS seq FROM revoked_logins"
_SINCE = """
SELECT seq, sid, extract(epoch FROM revoked_at - now())::float + %(listed)s AS seconds_left
FROM revoked_logins
WHERE seq > %(after)s AND revoked_at > now() - make_interval(secs => %(listed)s)
ORDER BY seq LIMIT %(limit)s"""


class StoredRevocations:
    """User's `chassis.access.Revocations`. It reads the table, so it is never stale."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def is_revoked(self, sid: str) -> bool:
        """Whether the session was revoked."""
        return self._db.statement(_IS_REVOKED, sid=sid) is not None

    def age(self) -> float:
        """The age of this data, always 0 seconds."""
        return 0.0


def revoke(db: Database, sid: str, user_id: UUID) -> None:
    """Revoke a session with its access and refresh token. Idempotent. Deletes rows whose tokens have all expired."""
    with db.transaction() as tx:
        tx.run(_LOCK_TABLE)
        tx.run(_DELETE_OLD, seconds=KEPT_SECONDS)
        tx.run(_REVOKE, sid=sid, user_id=user_id)


def find_role(db: Database, user_id: UUID, sid: str) -> str | None:
    """Return the user's current role, or None if the session was revoked or the user does not exist."""
    found = db.statement(_ROLE_UNLESS_REVOKED, user_id=user_id, sid=sid)
    return None if found is None else str(found["role"])


def list_revoked(db: Database, after: int) -> tuple[list[dict[str, Any]], int, bool]:
    """Return the sessions revoked after the cursor `after`, the next cursor, and whether more follow.

    Each has its `sid` and the `seconds_left` until its tokens have expired. Repeated reads from one cursor are safe.
    """
    last_seq, rows = db.read(lambda tx: _read_since(tx, after))
    more = len(rows) == PAGE
    revoked = [{"sid": row["sid"], "seconds_left": round(row["seconds_left"], 3)} for row in rows]
    return revoked, _next_cursor(rows, after, 0 if more else last_seq), more


def _read_since(tx: Transaction, after: int) -> tuple[int, list[Row]]:
    last_seq = int(tx.only(_LAST_SEQ)["seq"])  # read first: rows that commit later have a higher seq
    return last_seq, tx.all(_SINCE, after=after, listed=LISTED_SECONDS, limit=PAGE)


def _next_cursor(rows: Sequence[Any], after: int, last_seq: int) -> int:
    return max(rows[-1]["seq"] if rows else after, last_seq)
