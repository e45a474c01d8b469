"""Limits on how often something may happen within a time, counted in the service's own database.

Every counted limit uses this module, so all replicas share each count. The event is counted before it happens, so
parallel calls cannot pass the limit. An event that did not happen is given back.

A row has at most `number` times and ends with its window. Each call deletes a few ended rows, so the table cannot grow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from services.chassis.db import Transaction
from services.chassis.effects import TransientRefusal
from services.contracts.errors import ErrorCode

_RECENT = """
ARRAY(SELECT past FROM unnest(counted_events.times) AS past
      WHERE past > app_now() - make_interval(secs => %(seconds)s) ORDER BY past)"""

# One statement counts and takes under the row's lock, so exactly `number` of many concurrent calls succeed.
_TAKE = f"""
INSERT INTO counted_events (key, times, ends_at)
SELECT %(key)s, ARRAY[app_now()], app_now() + make_interval(secs => %(seconds)s) WHERE %(number)s > 0
ON CONFLICT (key) DO UPDATE SET times = array_append({_RECENT}, app_now()), ends_at = excluded.ends_at
WHERE cardinality({_RECENT}) < %(number)s
RETURNING times[cardinality(times)] AS at"""
_FREE_IN = f"""
SELECT extract(epoch FROM recent[greatest(1, cardinality(recent) - %(number)s + 1)] - app_now())::float + %(seconds)s
    AS seconds
FROM counted_events, LATERAL (SELECT {_RECENT}) AS found(recent) WHERE key = %(key)s"""
_GIVE_BACK = "UPDATE counted_events SET times = array_remove(times, %(at)s) WHERE key = %(key)s"
_GIVE_LATEST_BACK = (
    "UPDATE counted_events SET times = trim_array(times, least(1, cardinality(times))) WHERE key = %(key)s"
)
# At the end of the transaction's takes, so that no call waits for a lock while it has deleted a row of another one.
_DELETE_ENDED = """
DELETE FROM counted_events WHERE key IN (
    SELECT key FROM counted_events WHERE ends_at <= app_now()
    ORDER BY ends_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED)"""
_BATCH = 4  # more rows than a call adds


@dataclass(frozen=True)
class Limit:
    """At most `number` events within `seconds`, in a sliding window."""

    number: int
    seconds: int


@dataclass(frozen=True)
class Count:
    """One event that counts against `limit`. `what` names such events in the refusal."""

    key: str
    limit: Limit
    what: str = "requests"


@dataclass(frozen=True)
class Counted:
    """An event that was counted under `key` at the time `at`."""

    key: str
    at: datetime


def take(tx: Transaction, *counts: Count) -> list[Counted]:
    """Count an event. Raises Refused RATE_LIMITED with `retry_after` in seconds, and then counts nothing."""
    taken = []
    for count in sorted(counts, key=lambda count: count.key):  # every call locks the rows in one order
        counted = try_take(tx, count)
        if counted is None:
            raise _refuse(tx, count)
        taken.append(counted)
    tx.run(_DELETE_ENDED, batch=_BATCH)
    return taken


def try_take(tx: Transaction, count: Count) -> Counted | None:
    """Count an event, and return None if the limit is used up. A call of `take` must follow in the transaction."""
    found = tx.one(_TAKE, key=count.key, number=count.limit.number, seconds=count.limit.seconds)
    return None if found is None else Counted(count.key, found["at"])


def give_back(tx: Transaction, *taken: Counted) -> None:
    """Stop counting events that did not happen. Idempotent."""
    for counted in sorted(taken, key=lambda counted: counted.key):
        tx.run(_GIVE_BACK, key=counted.key, at=counted.at)


def give_latest_back(tx: Transaction, key: str) -> None:
    """Stop counting the latest event under `key`."""
    tx.run(_GIVE_LATEST_BACK, key=key)


def _refuse(tx: Transaction, count: Count) -> TransientRefusal:
    found = tx.one(_FREE_IN, key=count.key, number=count.limit.number, seconds=count.limit.seconds)
    wait = max(1, math.ceil((found and found["seconds"]) or 1))
    return TransientRefusal(ErrorCode.RATE_LIMITED, f"Too many {count.what}. Try again in {wait} s.", retry_after=wait)
