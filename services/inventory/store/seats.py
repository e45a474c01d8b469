"""Reads of seats: one seat for the gate, the seats of an owner, and the map of an event.

The version of a map changes whenever a seat changes. It needs no counter, so holds do not wait for each other.

    latest    the newest `updated_at` of the event's seats, which is one index lookup
    recent    the number and sum of the `updated_at` values within IN_FLIGHT before `latest`. A transaction can set
              an older `updated_at` and commit later. It does not change `latest`, but it changes `recent`.
              After IN_FLIGHT without a change, no such transaction can exist, so `latest` is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from services.chassis.db import Database, Row

IN_FLIGHT = "interval '15 seconds'"  # longer than any transaction, because statements and lock waits have timeouts
TICKETS_LISTED = 100

_SEAT = "SELECT * FROM seats WHERE seat_id = %(seat_id)s"
_OWNED = """
SELECT * FROM seats WHERE owner_user_id = %(owner_user_id)s
ORDER BY updated_at DESC, seat_id LIMIT %(limit)s
"""
_BY_ID = "SELECT * FROM seats WHERE seat_id = ANY(%(seat_ids)s::uuid[])"
_VERSIONS = f"""
SELECT event_id, concat_ws('-',
    (extract(epoch FROM latest.at) * 1000000)::int8, recent.number, recent.total) AS version
FROM unnest(%(event_ids)s::uuid[]) AS requested (event_id)
CROSS JOIN LATERAL (SELECT max(updated_at) AS at FROM seats WHERE event_id = requested.event_id) AS latest
CROSS JOIN LATERAL (
    SELECT count(*) AS number, (sum(extract(epoch FROM updated_at)) * 1000000)::numeric(40,0) AS total
    FROM seats
    WHERE event_id = requested.event_id
      AND updated_at > latest.at - {IN_FLIGHT} AND latest.at > statement_timestamp() - {IN_FLIGHT}
) AS recent
"""
# The database builds the JSON text, because 50,000 Python objects cost three times the CPU time. The schema allows only
# characters in rows and categories that need no JSON escape. The order is that of the table's unique index.
_MAP = """
SELECT coalesce(string_agg(
    '{"seat_id":"' || seat_id || '","row_number":"' || row_number || '","seat_number":' || seat_number ||
    ',"status":"' || status || '","category":"' || category || '"}', ','), '') AS seats
FROM (SELECT * FROM seats WHERE event_id = %(event_id)s ORDER BY row_number, seat_number) AS seat
"""
_COUNTS = """
SELECT event_id, count(*) AS total_seats, count(*) FILTER (WHERE status = 'AVAILABLE') AS available_seats
FROM seats WHERE event_id = ANY(%(event_ids)s::uuid[]) GROUP BY event_id
"""


def find(db: Database, seat_id: UUID) -> Row | None:
    """One seat, without a lock."""
    return db.statement(_SEAT, seat_id=seat_id)


def owned_by(db: Database, owner_user_id: UUID) -> list[Row]:
    """The seats that a user owns, at most 100, the last changed first."""
    return db.read(lambda tx: tx.all(_OWNED, owner_user_id=owner_user_id, limit=TICKETS_LISTED))


def find_all(db: Database, seat_ids: Sequence[UUID]) -> list[Row]:
    """The seats with these ids, in any order."""
    return db.read(lambda tx: tx.all(_BY_ID, seat_ids=list(seat_ids))) if seat_ids else []


def versions(db: Database, event_ids: Sequence[UUID]) -> dict[UUID, str]:
    """The version of each event's map, including events without seats."""
    found = db.read(lambda tx: tx.all(_VERSIONS, event_ids=list(event_ids)))
    return {row["event_id"]: row["version"] for row in found}


def render_map(db: Database, event_id: UUID) -> bytes:
    """Render the event's seats by row and number, as a JSON array that the database builds."""
    found = db.statement(_MAP, event_id=event_id)
    return b"[%s]" % (str(found["seats"]).encode() if found else b"")


def counts(db: Database, event_ids: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
    """Total and available seats by event, without the events that have no seats."""
    found = db.read(lambda tx: tx.all(_COUNTS, event_ids=list(event_ids)))
    return {row["event_id"]: (row["total_seats"], row["available_seats"]) for row in found}
