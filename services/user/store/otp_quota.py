"""The limit of codes to one phone: 5 in 10 minutes (D19 of the decisions)."""

from __future__ import annotations

import math
from datetime import datetime

from services.chassis.db import Database
from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode

LIMIT = 5
WINDOW_SECONDS = 600

_RECENT = """
ARRAY(SELECT sent FROM unnest(otp_sends.sent_at) AS sent
      WHERE sent > app_now() - make_interval(secs => %(window)s) ORDER BY sent)"""

# One statement counts and takes under the row's lock, so exactly LIMIT of many concurrent calls succeed.
_TAKE = f"""
INSERT INTO otp_sends (phone, sent_at) VALUES (%(phone)s, ARRAY[app_now()])
ON CONFLICT (phone) DO UPDATE SET sent_at = array_append({_RECENT}, app_now())
WHERE cardinality({_RECENT}) < %(limit)s
RETURNING sent_at[cardinality(sent_at)] AS taken_at"""

_FREE_IN = f"""
SELECT extract(epoch FROM ({_RECENT})[1] - app_now())::float + %(window)s AS seconds
FROM otp_sends WHERE phone = %(phone)s"""

_GIVE_BACK = "UPDATE otp_sends SET sent_at = array_remove(sent_at, %(taken_at)s) WHERE phone = %(phone)s"


def take(db: Database, phone: str) -> datetime:
    """Count one code to `phone` and return its time. Raises Refused RATE_LIMITED with `retry_after` in seconds."""
    taken = db.statement(_TAKE, phone=phone, limit=LIMIT, window=WINDOW_SECONDS)
    if taken is not None:
        taken_at: datetime = taken["taken_at"]
        return taken_at
    oldest = db.statement(_FREE_IN, phone=phone, window=WINDOW_SECONDS)
    wait = max(1, math.ceil(oldest["seconds"] or 1)) if oldest else 1
    raise Refused(ErrorCode.RATE_LIMITED, f"Too many codes. Try again in {wait} s.", retry_after=wait)


def give_back(db: Database, phone: str, taken_at: datetime) -> None:
    """Stop counting a code that was certainly not sent."""
    with db.transaction() as tx:
        tx.run(_GIVE_BACK, phone=phone, taken_at=taken_at)
