"""The outbox: notices written with the end of a saga, sent at least once, and given up after five tries."""

from __future__ import annotations

import logging
import time

from prometheus_client import Counter

from services.chassis import correlation
from services.chassis.db import Database, Row
from services.chassis.errors import Refused, Unknown
from services.orchestrator.participants import Users

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5
MAX_TRIES = 5
LONGEST_TICK = 1.0  # seconds, without the last call. A stopping process waits for one tick
NOTICES = Counter("notices_total", "Notices by outcome", ["message", "outcome"])

# Taking a row counts the try and delays the next one, so a crash while sending costs a try and not the notice. The
# statement that takes a notice also marks the one before it as sent, so each notice costs one commit.
_SENT = "UPDATE outbox SET sent_at = clock_timestamp() WHERE notice_id = %(sent)s RETURNING notice_id"
_NEXT = f"""
WITH done AS ({_SENT})
UPDATE outbox SET tries = tries + 1, next_try_at = clock_timestamp() + make_interval(secs => 3 * power(2, tries))
WHERE notice_id = (
    SELECT notice_id FROM outbox
    WHERE sent_at IS NULL AND given_up_at IS NULL AND next_try_at <= clock_timestamp()
        AND notice_id IS DISTINCT FROM %(sent)s
    ORDER BY next_try_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING notice_id, user_id, message, fields, tries, correlation_id"""
_GIVE_UP = "UPDATE outbox SET given_up_at = clock_timestamp() WHERE notice_id = %(notice_id)s RETURNING notice_id"


class Outbox:
    """Sends the notices that are due. Several processes can run it at once."""

    def __init__(self, db: Database, users: Users) -> None:
        self._db = db
        self._users = users

    def tick(self) -> bool:
        """Send due notices for `LONGEST_TICK`, or until one cannot be sent. True when more may be due."""
        until = time.monotonic() + LONGEST_TICK
        sent: int | None = None
        while time.monotonic() < until:
            notice = self._db.statement(_NEXT, sent=sent)
            if notice is None:
                return False
            with correlation.scope(str(notice["correlation_id"] or "")):
                if not self._send(notice):
                    return True
            sent = notice["notice_id"]
        self._db.statement(_SENT, sent=sent)
        return True

    def _send(self, notice: Row) -> bool:
        try:
            self._users.notify(str(notice["user_id"]), notice["message"], notice["fields"])
        except (Refused, Unknown) as error:
            self._handle_failure(notice, error)
            return False
        NOTICES.labels(notice["message"], "sent").inc()
        return True

    def _handle_failure(self, notice: Row, error: Refused | Unknown) -> None:
        if notice["tries"] < MAX_TRIES:
            return
        NOTICES.labels(notice["message"], "given_up").inc()
        logger.warning(
            "gave up notice %d (%s) after %d tries: %s", notice["notice_id"], notice["message"], MAX_TRIES, error
        )
        self._db.statement(_GIVE_UP, notice_id=notice["notice_id"])
