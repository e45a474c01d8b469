"""The commands that staff gave to accounts. A record is written with its effect and never changed."""

from __future__ import annotations

from uuid import UUID

from services.chassis import correlation
from services.chassis.db import Database, Row, Transaction

PAGE = 100

# The lock comes before seq is drawn, so seq is the order of commit. A reader after a row has then skipped no row.
_LOCK_TABLE = "LOCK TABLE staff_commands IN EXCLUSIVE MODE"
_RECORD = """
INSERT INTO staff_commands (staff_id, action, subject, correlation_id)
VALUES (%(staff_id)s, %(action)s, %(subject)s, %(correlation_id)s)"""
_AFTER = "SELECT * FROM staff_commands WHERE seq > %(after)s ORDER BY seq LIMIT %(limit)s"


def record(tx: Transaction, staff_id: UUID, action: str, subject: UUID) -> None:
    """Record a command in the transaction of its effect."""
    tx.run(_LOCK_TABLE)
    tx.run(_RECORD, staff_id=staff_id, action=action, subject=subject, correlation_id=correlation.current())


def list_after(db: Database, after: int) -> list[Row]:
    """The commands after number `after`, oldest first, at most PAGE."""
    return db.read(lambda tx: tx.all(_AFTER, after=after, limit=PAGE))
