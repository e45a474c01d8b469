"""Reading seats: one at a time for the gate, by owner, and a whole event's map.

A map's version is cheap, changes whenever a seat does, and no hold has to wait for a counter to get it:

    latest    the newest `updated_at` of the event's seats: one probe of an index
    recent    number and sum of the stamps of the last `IN_FLIGHT` before it. A transaction that stamped its row
              earlier and committed later than another leaves `latest` as it is and shows up here. Once the event has
              been quiet for that long nothing can be in flight any more, and `latest` alone tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from services.chassis.db import Database, Row

IN_FLIGHT = "interval '15 seconds'"  # no transaction lives that long: statements and lock waits are bounded
TICKETS_LISTED = 100

_SEAT = "SELECT * FROM seats WHERE seat_id = %(seat_id)s"
_OWNED = """
SELECT * FROM seats WHERE owner_user_id = %(owner_user_id)s
ORDER BY updated_at DESC, seat_id LIMIT %(limit)s
"""
_VERSIONS = f"""
SELECT event_id, concat_ws('-',
    (extract(epoch FROM latest.at) * 1000000)::int8, recent.number, recent.total) AS version
FROM unnest(%(event_ids)s::uuid[]) AS asked (event_id)
CROSS JOIN LATERAL (SELECT max(updated_at) AS at FROM seats WHERE event_id = asked.event_id) AS latest
CROSS JOIN LATERAL (
    SELECT count(*) AS number, (sum(extract(epoch FROM updated_at)) * 1000000)::numeric(40,0) AS total
    FROM seats
    WHERE event_id = asked.event_id
      AND updated_at > latest.at - {IN_FLIGHT} AND latest.at > statement_timestamp() - {IN_FLIGHT}
) AS recent
"""
# Put together as text, since 50,000 objects would cost three times as much; the schema keeps rows and categories to
# characters that JSON takes as they are. The order is that of the table's unique index.
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
    """One seat as it stands, without its lock."""
    return db.statement(_SEAT, seat_id=seat_id)


def owned_by(db: Database, owner_user_id: UUID) -> list[Row]:
    """The seats that a user owns, those that changed last first, at most 100."""
    return db.read(lambda tx: tx.all(_OWNED, owner_user_id=owner_user_id, limit=TICKETS_LISTED))


def versions(db: Database, event_ids: Sequence[UUID]) -> dict[UUID, str]:
    """The version of each event's map. An event without seats has one too."""
    found = db.read(lambda tx: tx.all(_VERSIONS, event_ids=list(event_ids)))
    return {row["event_id"]: row["version"] for row in found}


def rendered_map(db: Database, event_id: UUID) -> bytes:
    """The event's seats by row and number, as a JSON array made by the database: no object per seat in here."""
    found = db.statement(_MAP, event_id=event_id)
    return b"[%s]" % (str(found["seats"]).encode() if found else b"")


def counts(db: Database, event_ids: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
    """Total and available seats by event; events without seats are left out."""
    found = db.read(lambda tx: tx.all(_COUNTS, event_ids=list(event_ids)))
    return {row["event_id"]: (row["total_seats"], row["available_seats"]) for row in found}
