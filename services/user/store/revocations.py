"""Sessions that were revoked before their tokens expired (D31 of the decisions)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
_REVOKE = """
INSERT INTO revoked_logins (sid, user_id) SELECT sid, %(user_id)s FROM unnest(%(sids)s::text[]) AS sid
ON CONFLICT (sid) DO NOTHING"""
_DELETE_LOGIN = "DELETE FROM logins WHERE sid = %(sid)s"

_IS_REVOKED = "SELECT 1 FROM revoked_logins WHERE sid = %(sid)s"

_ROLE_UNLESS_REVOKED = """
SELECT role || CASE WHEN role = 'staff' THEN coalesce(':' || staff_area, '') ELSE '' END AS role FROM users
WHERE user_id = %(user_id)s AND locked_at IS NULL AND NOT EXISTS (SELECT FROM revoked_logins WHERE sid = %(sid)s)"""

# The sid proves that the reader's cursor counts rows of this table. A restored backup gives its seq to another row.
# A reader of an older version sends no sid. Its cursor can only be compared with the end of the list.
_END = """
SELECT coalesce(max(seq), 0) AS seq, (SELECT sid FROM revoked_logins ORDER BY seq DESC LIMIT 1) AS sid,
       CASE WHEN %(sid)s = '' THEN %(after)s <= coalesce(max(seq), 0)
            ELSE EXISTS (SELECT FROM revoked_logins WHERE seq = %(after)s AND sid = %(sid)s) END AS is_known
FROM revoked_logins"""
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

    def find_role(self, user_id: UUID, sid: str) -> str | None:
        """The user's current role, or None if the session has ended."""
        return find_role(self._db, user_id, sid)


def revoke(db: Database, sid: str, user_id: UUID) -> None:
    """Revoke a session with its access and refresh token. Idempotent. Deletes rows whose tokens have all expired."""
    with db.transaction() as tx:
        tx.run(_DELETE_LOGIN, sid=sid)
        revoke_all(tx, [sid], user_id)


def revoke_all(tx: Transaction, sids: list[str], user_id: UUID) -> None:
    """Revoke several sessions of a user."""
    tx.run(_LOCK_TABLE)
    tx.run(_DELETE_OLD, seconds=KEPT_SECONDS)
    tx.run(_REVOKE, sids=sids, user_id=user_id)


def find_role(db: Database, user_id: UUID, sid: str) -> str | None:
    """Return the user's current role, such as `staff:gate` for limited staff.

    None if the session was revoked, or if the user is locked or does not exist.
    """
    found = db.statement(_ROLE_UNLESS_REVOKED, user_id=user_id, sid=sid)
    return None if found is None else str(found["role"])


@dataclass(frozen=True)
class Cursor:
    """A place in the list: the entry `sid` at `seq`. The default is the start."""

    seq: int = 0
    sid: str = ""


def list_revoked(db: Database, after: Cursor) -> tuple[list[dict[str, Any]], Cursor, bool]:
    """Return the sessions revoked after the cursor `after`, the next cursor, and whether more follow.

    Each has its `sid` and the `seconds_left` until its tokens have expired. Repeated reads from one cursor are safe.
    The list starts again if it does not have the entry of the cursor, as after the restore of an older backup.
    """
    with db.transaction() as tx:
        end = tx.only(_END, after=after.seq, sid=after.sid)  # read first: rows that commit later have a higher seq
        start = after.seq if end["is_known"] else 0
        rows = tx.all(_SINCE, after=start, listed=LISTED_SECONDS, limit=PAGE)
    more = len(rows) == PAGE
    revoked = [{"sid": row["sid"], "seconds_left": round(row["seconds_left"], 3)} for row in rows]
    return revoked, _next_cursor(rows, None if more else end), more


def _next_cursor(rows: Sequence[Row], end: Row | None) -> Cursor:
    last = max((row for row in (*rows[-1:], end) if row), key=lambda row: int(row["seq"]))
    return Cursor(int(last["seq"]), last["sid"] or "")
