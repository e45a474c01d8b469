"""Seat maps and seat counts of events. Counts are cached until the version of the event changes."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from uuid import UUID

from services.chassis.db import Database
from services.inventory.store import seats

MAX_CACHED = 1000  # events with cached counts

Counts = tuple[int, int]  # total, available


class SeatMaps:
    """Seat maps and counts of events. Thread-safe."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = Lock()
        self._cached: dict[UUID, tuple[str, Counts]] = {}

    def version(self, event_id: UUID) -> str:
        """The version of an event's map. It changes whenever a seat changes."""
        return seats.versions(self._db, [event_id])[event_id]

    def render(self, event_id: UUID, version: str) -> bytes:
        """The map as JSON. It is at least as new as `version`, because the caller read `version` first."""
        return b'{"version":"%s","seats":%s}' % (version.encode(), seats.render_map(self._db, event_id))

    def counts(self, event_ids: Sequence[UUID]) -> dict[UUID, Counts]:
        """Total and available seats of each event."""
        versions = seats.versions(self._db, event_ids)
        with self._lock:
            known = {event_id: cached for event_id in event_ids if (cached := self._cached.get(event_id))}
        fresh = {event_id: counts for event_id, (version, counts) in known.items() if version == versions[event_id]}
        changed = [event_id for event_id in versions if event_id not in fresh]
        counted = seats.counts(self._db, changed) if changed else {}
        self._store({event_id: (versions[event_id], counted.get(event_id, (0, 0))) for event_id in changed})
        return {event_id: fresh.get(event_id) or counted.get(event_id, (0, 0)) for event_id in event_ids}

    def _store(self, counted: dict[UUID, tuple[str, Counts]]) -> None:
        with self._lock:
            if len(self._cached) + len(counted) > MAX_CACHED:
                self._cached.clear()
            self._cached |= counted
