"""The public catalogue: the list of upcoming events with their available seats, and the page of one event.

Both are at most a second old. All requests of a second share one call to Inventory and get the same bytes.
If nothing has changed, Inventory returns 304 and the previous bytes are served again.

If Inventory does not answer, the list has `available_seats: null`, because visitors can use it without the counts.
The page of an event is then 503 SERVICE_UNAVAILABLE, because a stale seat map would offer sold seats.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from services.chassis import json_codec, web
from services.chassis.db import Database
from services.chassis.errors import Unknown
from services.chassis.single_flight_cache import SingleFlightCacheByKey
from services.event import store
from services.event.inventory_client import InventoryClient, SeatMap

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rendered:
    """The bytes of a response and their ETag."""

    body: bytes
    etag: str

    @classmethod
    def of(cls, content: Any) -> Rendered:
        """Render `content` as JSON."""
        body = json_codec.encode(content)
        return cls(body, hashlib.blake2b(body, digest_size=16).hexdigest())


class Catalogue:
    """The events of the public routes. Thread-safe."""

    def __init__(self, db: Database, inventory: InventoryClient) -> None:
        self._db = db
        self._pages: SingleFlightCacheByKey[UUID, Rendered] = SingleFlightCacheByKey(
            lambda event_id: _EventPage(db, inventory, event_id).load, before_waiting=inventory.refuse_if_away
        )
        self._counts: SingleFlightCacheByKey[tuple[UUID, ...], dict[UUID, int]] = SingleFlightCacheByKey(
            lambda event_ids: partial(inventory.count_available, event_ids), before_waiting=inventory.refuse_if_away
        )

    def event(self, event_id: UUID) -> Rendered:
        """One event with its seats. Raises Refused EVENT_NOT_FOUND, Unknown."""
        return self._pages.get(event_id)

    def upcoming(self, page: int, per_page: int) -> Rendered:
        """A page of upcoming events, the next one first. Raises Unknown if the database does not answer."""
        events, total = self._db.read(lambda tx: store.upcoming(tx, page, per_page))
        counts = self._count_available(tuple(event["event_id"] for event in events))
        rows = [_list_item(event, counts.get(event["event_id"])) for event in events]
        pagination = web.pagination(total, page, per_page)
        return Rendered.of({"success": True, "data": rows, "pagination": pagination})

    def _count_available(self, event_ids: tuple[UUID, ...]) -> dict[UUID, int]:
        if not event_ids:
            return {}
        try:
            return self._counts.get(event_ids)
        except Unknown as unknown:
            logger.warning("events are listed without their available seats: %s", unknown.message)
            return {}


class _EventPage:
    """The page of one event. It keeps the last seat map, so that an unchanged map is not fetched again."""

    def __init__(self, db: Database, inventory: InventoryClient, event_id: UUID) -> None:
        self._db = db
        self._inventory = inventory
        self._event_id = event_id
        self._source: tuple[store.EventFacts, SeatMap] | None = None
        self._rendered = Rendered(b"", "")

    def load(self) -> Rendered:
        facts = self._db.read(lambda tx: store.find(tx, self._event_id))
        known = self._source[1] if self._source else None
        seat_map = self._inventory.fetch_map(self._event_id, facts["pricing_tiers"], known)
        if self._source != (facts, seat_map):
            self._rendered = Rendered.of({"success": True, "data": _page_item(facts, seat_map)})
            self._source = (facts, seat_map)
        return self._rendered


def _list_item(event: store.EventFacts, available: int | None) -> store.EventFacts:
    venue = {name: event["venue"][name] for name in ("venue_id", "name")}
    return _public_fields({**event, "venue": venue}, available)


def _page_item(event: store.EventFacts, seat_map: SeatMap) -> store.EventFacts:
    return {**_public_fields(event, seat_map.available), "seats": msgspec.Raw(seat_map.rendered)}


def _public_fields(event: store.EventFacts, available: int | None) -> store.EventFacts:
    names = ("event_id", "name", "venue", "hall_id", "event_date", "total_seats", "pricing_tiers")
    return {**{name: event[name] for name in names}, "available_seats": available}
