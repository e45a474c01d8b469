"""The outbox: notices written with the end of a saga, sent at least once, and given up after five tries.

A batch has at most one notice of a user, the oldest. A later one waits until that one is sent or given up, so each user
gets their notices in order.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from prometheus_client import Counter

from services.chassis.db import Database, Row
from services.chassis.errors import NotSent, Refused, Unknown
from services.orchestrator.participants import Users

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5
MAX_TRIES = 5
NOT_SENT_SECONDS = 1
NOTICES = Counter("notices_total", "Notices by outcome", ["message", "outcome"])
_SENT = ("user_id", "message", "fields", "correlation_id")

# Taking a row counts the try and delays the next one, so a crash while sending costs a try and not the notice.
_TAKE = """
UPDATE outbox SET tries = tries + 1, next_try_at = clock_timestamp() + make_interval(secs => 3 * power(2, tries))
WHERE notice_id IN (
    SELECT notice_id FROM outbox AS due
    WHERE sent_at IS NULL AND given_up_at IS NULL AND next_try_at <= clock_timestamp() AND NOT EXISTS (
        SELECT FROM outbox AS earlier WHERE earlier.user_id = due.user_id AND earlier.notice_id < due.notice_id
            AND earlier.sent_at IS NULL AND earlier.given_up_at IS NULL)
    ORDER BY next_try_at LIMIT %(number)s FOR UPDATE OF due SKIP LOCKED)
RETURNING notice_id, user_id, message, fields, tries, correlation_id"""
# A call without a connection costs no try, unless another process has taken the notice meanwhile.
_PUT_BACK = f"""
UPDATE outbox SET tries = outbox.tries - 1, next_try_at = clock_timestamp() + interval '{NOT_SENT_SECONDS} seconds'
FROM unnest(%(notice_ids)s::bigint[], %(tries)s::int[]) AS taken (notice_id, tries)
WHERE outbox.notice_id = taken.notice_id AND outbox.tries = taken.tries AND sent_at IS NULL AND given_up_at IS NULL"""
_END = """
UPDATE outbox SET sent_at = CASE WHEN notice_id = ANY(%(sent)s) THEN clock_timestamp() END,
    given_up_at = CASE WHEN notice_id = ANY(%(given_up)s) THEN clock_timestamp() END
WHERE notice_id = ANY(%(sent)s) OR notice_id = ANY(%(given_up)s)"""


class Outbox:
    """Sends the notices that are due, at most `number` at once. Several processes can run it at once."""

    def __init__(self, db: Database, users: Users, number: int) -> None:
        self._db = db
        self._users = users
        self._number = number

    def tick(self) -> bool:
        """Send one batch of due notices. True when more may be due. Raises NotSent without a connection to User."""
        with self._db.transaction() as tx:
            due = tx.all(_TAKE, number=self._number)
        if due:
            self._end(due, self._send(due))
        return len(due) == self._number

    def _send(self, due: Sequence[Row]) -> list[bool]:
        try:
            return self._users.notify([{name: notice[name] for name in _SENT} for notice in due])
        except NotSent:
            ids, tries = [notice["notice_id"] for notice in due], [notice["tries"] for notice in due]
            self._db.statement(_PUT_BACK, notice_ids=ids, tries=tries)
            raise
        except (Refused, Unknown) as error:
            logger.warning("%d notices may not be sent: %s", len(due), error)
            return [False] * len(due)

    def _end(self, due: Sequence[Row], results: Sequence[bool]) -> None:
        sent = [notice for notice, is_sent in zip(due, results, strict=True) if is_sent]
        given_up = [notice for notice in due if notice not in sent and notice["tries"] >= MAX_TRIES]
        with self._db.transaction() as tx:
            tx.run(_END, sent=[notice["notice_id"] for notice in sent], given_up=[n["notice_id"] for n in given_up])
        for notice in sent:
            NOTICES.labels(notice["message"], "sent").inc()
        for notice in given_up:
            NOTICES.labels(notice["message"], "given_up").inc()
            logger.warning("gave up notice %d (%s) after %d tries", notice["notice_id"], notice["message"], MAX_TRIES)
