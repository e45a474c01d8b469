"""What a visitor sees: upcoming events with what is left, and one event with its seats.

Both are at most a second old. Of however many that ask within a second one asks Inventory, and everybody is given the
same bytes; when nothing has changed Inventory says so (304) and the bytes of before serve on.

When Inventory does not answer, the list still comes, with `available_seats: null`: it is about events first. A seat
map without seats would be a lie, so it is 503 SERVICE_UNAVAILABLE; stale seats would sell what is gone.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from services.chassis import json_codec
from services.chassis.db import Database
from services.chassis.errors import Unknown
from services.event import store
from services.event.seats import SeatMap, Seats
from services.event.single_flight_cache import FreshByKey

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rendered:
    """An answer's bytes and their ETag."""

    body: bytes
    etag: str

    @classmethod
    def of(cls, content: Any) -> Rendered:
        """`content` as JSON."""
        body = json_codec.encode(content)
        return cls(body, hashlib.blake2b(body, digest_size=16).hexdigest())


class Catalogue:
    """Events as visitors see them. Thread-safe."""

    def __init__(self, db: Database, seats: Seats) -> None:
        self._db = db
        self._seats = seats
        self._maps: FreshByKey[UUID, Rendered] = FreshByKey(lambda event_id: _EventPage(db, seats, event_id).load)
        self._counts: FreshByKey[tuple[UUID, ...], dict[UUID, int]] = FreshByKey(self._count)

    def event(self, event_id: UUID) -> Rendered:
        """One event with its seats. Raises Refused EVENT_NOT_FOUND, Unknown."""
        return self._maps.get(event_id)

    def upcoming(self, page: int, per_page: int) -> Rendered:
        """A page of upcoming events, the next one first. Raises Unknown when the own database does not answer."""
        events, total = self._db.read(lambda tx: store.upcoming(tx, page, per_page))
        counts = self._left(tuple(event["event_id"] for event in events))
        rows = [_listed(event, counts.get(event["event_id"])) for event in events]
        pages = {"page": page, "per_page": per_page, "total": total, "total_pages": -(-total // per_page)}
        return Rendered.of({"success": True, "data": rows, "pagination": pages})

    def _left(self, event_ids: tuple[UUID, ...]) -> dict[UUID, int]:
        if not event_ids:
            return {}
        try:
            return self._counts.get(event_ids)
        except Unknown as unknown:
            logger.warning("events are listed without what is left of them: %s", unknown.message)
            return {}

    def _count(self, event_ids: tuple[UUID, ...]) -> Callable[[], dict[UUID, int]]:
        return lambda: self._seats.available(event_ids)


class _EventPage:
    """One event's page: keeps the last seat map, to be spared another when nothing has changed."""

    def __init__(self, db: Database, seats: Seats, event_id: UUID) -> None:
        self._db = db
        self._seats = seats
        self._event_id = event_id
        self._made_of: tuple[store.Facts, SeatMap] | None = None
        self._rendered = Rendered(b"", "")

    def load(self) -> Rendered:
        facts = self._db.read(lambda tx: store.find(tx, self._event_id))
        known = self._made_of[1] if self._made_of else None
        seat_map = self._seats.map(self._event_id, facts["pricing_tiers"], known)
        if self._made_of != (facts, seat_map):
            self._rendered = Rendered.of({"success": True, "data": _whole(facts, seat_map)})
            self._made_of = (facts, seat_map)
        return self._rendered


def _listed(event: store.Facts, available: int | None) -> store.Facts:
    venue = {name: event["venue"][name] for name in ("venue_id", "name")}
    return _public({**event, "venue": venue}, available)


def _whole(event: store.Facts, seat_map: SeatMap) -> store.Facts:
    return {**_public(event, seat_map.available), "seats": msgspec.Raw(seat_map.rendered)}


def _public(event: store.Facts, available: int | None) -> store.Facts:
    names = ("event_id", "name", "venue", "hall_id", "event_date", "total_seats", "pricing_tiers")
    return {**{name: event[name] for name in names}, "available_seats": available}
