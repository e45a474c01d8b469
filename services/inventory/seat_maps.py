"""What Event reads of whole events. Counting is done again only when an event's version has changed."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from uuid import UUID

from services.chassis.db import Database
from services.inventory.store import seats

KEPT = 1000  # events whose counts are remembered

Counts = tuple[int, int]  # total, available


class SeatMaps:
    """Seat maps and counts of events. Thread-safe."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = Lock()
        self._kept: dict[UUID, tuple[str, Counts]] = {}

    def version(self, event_id: UUID) -> str:
        """The version of an event's map; another one whenever a seat of it changes."""
        return seats.versions(self._db, [event_id])[event_id]

    def rendered(self, event_id: UUID, version: str) -> bytes:
        """The map as JSON, at least as new as `version`, which was read before it."""
        return b'{"version":"%s","seats":%s}' % (version.encode(), seats.rendered_map(self._db, event_id))

    def counts(self, event_ids: Sequence[UUID]) -> dict[UUID, Counts]:
        """Total and available seats of each event asked for."""
        versions = seats.versions(self._db, event_ids)
        with self._lock:
            known = {event_id: kept for event_id in event_ids if (kept := self._kept.get(event_id))}
        fresh = {event_id: counts for event_id, (version, counts) in known.items() if version == versions[event_id]}
        changed = [event_id for event_id in versions if event_id not in fresh]
        counted = seats.counts(self._db, changed) if changed else {}
        self._keep({event_id: (versions[event_id], counted.get(event_id, (0, 0))) for event_id in changed})
        return {event_id: fresh.get(event_id) or counted.get(event_id, (0, 0)) for event_id in event_ids}

    def _keep(self, counted: dict[UUID, tuple[str, Counts]]) -> None:
        with self._lock:
            if len(self._kept) + len(counted) > KEPT:
                self._kept.clear()
            self._kept |= counted
