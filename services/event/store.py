"""The SQL for events and venues. The clock of the database decides whether an event has ended."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

from services.chassis.db import Row, Transaction
from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode
from services.contracts.money import CENT

EventFacts = dict[str, Any]

_GET = """
    SELECT e.*, v.name AS venue_name, v.address, e.event_date <= app_now() AS ended
    FROM events e JOIN venues v USING (venue_id) WHERE e.event_id = %(event_id)s"""
_ALL = """
    SELECT e.*, v.name AS venue_name, v.address, e.event_date <= app_now() AS ended
    FROM events e JOIN venues v USING (venue_id)
    WHERE e.event_id = ANY(coalesce(%(event_ids)s::uuid[], ARRAY[e.event_id]))
    ORDER BY e.event_date DESC, e.event_id DESC LIMIT %(limit)s OFFSET %(offset)s"""
_COUNT_ALL = """
    SELECT count(*) AS total FROM events WHERE event_id = ANY(coalesce(%(event_ids)s::uuid[], ARRAY[event_id]))"""
_UPCOMING = """
    SELECT e.*, v.name AS venue_name, v.address, false AS ended
    FROM events e JOIN venues v USING (venue_id) WHERE e.event_date > app_now()
    ORDER BY e.event_date, e.event_id LIMIT %(limit)s OFFSET %(offset)s"""
_COUNT_UPCOMING = "SELECT count(*) AS total FROM events WHERE event_date > app_now()"


def find(tx: Transaction, event_id: UUID) -> EventFacts:
    """One event with its venue. Raises Refused EVENT_NOT_FOUND."""
    row = tx.one(_GET, event_id=event_id)
    if row is None:
        raise Refused(ErrorCode.EVENT_NOT_FOUND)
    return _facts(row)


def all_events(
    tx: Transaction, page: int, per_page: int, event_ids: list[UUID] | None = None
) -> tuple[list[EventFacts], int]:
    """A page of all events, or of those in `event_ids`, the latest date first, and their total number."""
    rows = tx.all(_ALL, limit=per_page, offset=(page - 1) * per_page, event_ids=event_ids)
    return [_facts(row) for row in rows], int(tx.only(_COUNT_ALL, event_ids=event_ids)["total"])


def upcoming(tx: Transaction, page: int, per_page: int) -> tuple[list[EventFacts], int]:
    """A page of the events that have not begun, the next one first, and the total number."""
    rows = tx.all(_UPCOMING, limit=per_page, offset=(page - 1) * per_page)
    return [_facts(row) for row in rows], int(tx.only(_COUNT_UPCOMING)["total"])


def _facts(row: Row) -> EventFacts:
    return {
        "event_id": row["event_id"],
        "name": row["name"],
        "venue": {"venue_id": row["venue_id"], "name": row["venue_name"], "address": row["address"]},
        "hall_id": row["hall_id"],
        "event_date": row["event_date"],
        "ended": row["ended"],
        "total_seats": row["total_seats"],
        "pricing_tiers": {tier: Decimal(price).quantize(CENT) for tier, price in row["pricing_tiers"].items()},
    }
