"""Notifications: rows written with the saga's end, sent at least once, given up after five tries with a WARNING."""

from __future__ import annotations

import logging

from prometheus_client import Counter

from services.chassis import correlation
from services.chassis.db import Database, Row
from services.chassis.errors import Refused, Unknown
from services.orchestrator.participants import Users

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5
MAX_TRIES = 5
NOTICES = Counter("notices_total", "Notices by outcome", ["message", "outcome"])

# Taking a row counts the try and puts the next one off, so that a crash while sending costs a try and no notice.
_TAKE = """
UPDATE outbox SET tries = tries + 1, next_try_at = clock_timestamp() + make_interval(secs => 3 * power(2, tries))
WHERE notice_id = (
    SELECT notice_id FROM outbox WHERE sent_at IS NULL AND given_up_at IS NULL AND next_try_at <= clock_timestamp()
    ORDER BY next_try_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING notice_id, user_id, message, fields, tries, correlation_id"""
_SENT = "UPDATE outbox SET sent_at = clock_timestamp() WHERE notice_id = %(notice_id)s RETURNING notice_id"
_GIVE_UP = "UPDATE outbox SET given_up_at = clock_timestamp() WHERE notice_id = %(notice_id)s RETURNING notice_id"


class Outbox:
    """Sends what is due; several processes may."""

    def __init__(self, db: Database, users: Users) -> None:
        self._db = db
        self._users = users

    def tick(self) -> bool:
        """Send one notice. True when there was one."""
        notice = self._db.statement(_TAKE)
        if notice is None:
            return False
        with correlation.correlated(str(notice["correlation_id"] or "")):
            self._deliver(notice)
        return True

    def _deliver(self, notice: Row) -> None:
        try:
            self._users.notify(str(notice["user_id"]), notice["message"], notice["fields"])
        except (Refused, Unknown) as error:
            self._failed(notice, error)
            return
        NOTICES.labels(notice["message"], "sent").inc()
        self._mark(_SENT, notice)

    def _failed(self, notice: Row, error: Refused | Unknown) -> None:
        if notice["tries"] < MAX_TRIES:
            return
        NOTICES.labels(notice["message"], "given_up").inc()
        logger.warning(
            "gave up notice %d (%s) after %d tries: %s", notice["notice_id"], notice["message"], MAX_TRIES, error
        )
        self._mark(_GIVE_UP, notice)

    def _mark(self, sql: str, notice: Row) -> None:
        self._db.statement(sql, notice_id=notice["notice_id"])
