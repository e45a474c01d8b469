"""The HTTP client for Inventory: seat maps and counts of available seats."""

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

EVENTS_PER_CALL = 50  # a request line with 50 ids is below the 4 KiB limit of a server


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


class _MapResponse(msgspec.Struct):
    data: _Map


class _Count(msgspec.Struct):
    event_id: UUID
    available_seats: int


class _CountResponse(msgspec.Struct):
    data: list[_Count]


@dataclass(frozen=True)
class SeatMap:
    """The seats of an event with their prices, as JSON. `version` comes from Inventory, `prices` from Event."""

    version: str
    prices: dict[str, Decimal]
    available: int
    rendered: bytes


class InventoryClient:
    """Reads seats from Inventory. Thread-safe."""

    def __init__(self, inventory: HttpPeer) -> None:
        self._inventory = inventory

    def refuse_if_away(self) -> None:
        """Raise Unknown if Inventory is known to be away."""
        self._inventory.neighbour.refuse_if_away()

    def fetch_map(self, event_id: UUID, prices: dict[str, Decimal], known: SeatMap | None) -> SeatMap:
        """Fetch the seat map. Returns `known` if neither seats nor prices have changed. Raises Refused or Unknown."""
        version = known.version if known and known.prices == prices else None
        raw = self._inventory.fetch(f"/seats?event_id={event_id}", etag=version)
        if raw is None and known is not None:
            return known
        found = _decode(raw, _MapResponse).data
        available = sum(seat.status == "AVAILABLE" for seat in found.seats)
        return SeatMap(found.version, prices, available, _render(found.seats, prices))

    def count_available(self, event_ids: Sequence[UUID]) -> dict[UUID, int]:
        """Count the AVAILABLE seats of each event. Raises Refused or Unknown."""
        counts: dict[UUID, int] = {}
        for start in range(0, len(event_ids), EVENTS_PER_CALL):
            query = "&".join(f"event_id={event_id}" for event_id in event_ids[start : start + EVENTS_PER_CALL])
            found = _decode(self._inventory.fetch(f"/seats/availability?{query}"), _CountResponse).data
            counts |= {count.event_id: count.available_seats for count in found}
        return counts


def _decode(raw: bytes | None, shape: type[T]) -> T:
    try:
        return json_codec.decode_as(raw or b"", shape)
    except msgspec.DecodeError as error:
        raise Unknown(f"inventory-service returned an unexpected body: {error}") from None


def _render(seats: list[_Seat], prices: dict[str, Decimal]) -> bytes:
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
