"""Event asks Inventory (the choreography of the reference): seat maps and counts, over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

import msgspec

from services.chassis import json_codec
from services.chassis.clients import HttpPeer
from services.chassis.errors import Unknown

logger = logging.getLogger(__name__)
T = TypeVar("T")

EVENTS_A_CALL = 50  # a request line of 50 ids stays well below a server's limit of 4 KiB


class _Seat(msgspec.Struct, gc=False):
    seat_id: str
    row_number: str
    seat_number: int
    status: str
    category: str


class _PricedSeat(msgspec.Struct, gc=False):
    seat_id: str
    row_number: str
    seat_number: int
    status: str
    category: str
    price: msgspec.Raw


class _Map(msgspec.Struct):
    version: str
    seats: list[_Seat]


class _MapAnswer(msgspec.Struct):
    data: _Map


class _Count(msgspec.Struct):
    event_id: UUID
    available_seats: int


class _CountAnswer(msgspec.Struct):
    data: list[_Count]


@dataclass(frozen=True)
class SeatMap:
    """An event's seats with their prices, as JSON. `version` is Inventory's; `prices` are those that went in."""

    version: str
    prices: dict[str, Decimal]
    available: int
    rendered: bytes


class Seats:
    """Inventory's seats, as Event's callers see them."""

    def __init__(self, inventory: HttpPeer) -> None:
        self._inventory = inventory

    def map(self, event_id: UUID, prices: dict[str, Decimal], known: SeatMap | None) -> SeatMap:
        """The seat map; `known` itself when neither seats nor prices have changed since. Raises Unknown."""
        version = known.version if known and known.prices == prices else None
        raw = self._inventory.fetch(f"/seats?event_id={event_id}", etag=version)
        if raw is None and known is not None:
            return known
        found = _understood(raw, _MapAnswer).data
        available = sum(seat.status == "AVAILABLE" for seat in found.seats)
        return SeatMap(found.version, prices, available, _rendered(found.seats, prices))

    def available(self, event_ids: Sequence[UUID]) -> dict[UUID, int]:
        """How many seats of each event are AVAILABLE. Raises Unknown."""
        counts: dict[UUID, int] = {}
        for start in range(0, len(event_ids), EVENTS_A_CALL):
            query = "&".join(f"event_id={event_id}" for event_id in event_ids[start : start + EVENTS_A_CALL])
            found = _understood(self._inventory.fetch(f"/seats/availability?{query}"), _CountAnswer).data
            counts |= {count.event_id: count.available_seats for count in found}
        return counts


def _understood(raw: bytes | None, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(raw or b"", type=shape)
    except msgspec.DecodeError as error:
        raise Unknown(f"inventory-service answered with something else: {error}") from None


def _rendered(seats: list[_Seat], prices: dict[str, Decimal]) -> bytes:
    price_of = {category: msgspec.Raw(json_codec.encode(price)) for category, price in prices.items()}
    unpriced = msgspec.Raw(b"null")
    return json_codec.encode(
        [
            _PricedSeat(
                s.seat_id, s.row_number, s.seat_number, s.status, s.category, price_of.get(s.category, unpriced)
            )
            for s in seats
        ]
    )
