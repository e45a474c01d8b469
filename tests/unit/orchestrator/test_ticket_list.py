"""A list of tickets needs the same number of calls for one sold ticket and for a hundred."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from services.contracts.pb import inventory_pb2 as pb
from services.orchestrator.api import account
from services.orchestrator.participants import Events

pytestmark = pytest.mark.unit

USER = str(uuid4())


class World:
    """A user who owns and has sold `number` tickets, each of another event. It counts the calls of one list."""

    def __init__(self, number: int) -> None:
        self.calls: list[str] = []
        self.owned = [self._seat(str(uuid4())) for _ in range(number)]
        self.sold = [self._seat("") for _ in range(number)]
        self.participants = SimpleNamespace(orders=self, inventory=self, events=Events(self))  # type: ignore[arg-type]

    def _seat(self, order_id: str) -> pb.Seat:
        return pb.Seat(seat_id=str(uuid4()), event_id=str(uuid4()), order_id=order_id, price_paid="1.00")

    def list_transfers(self, status: str, **_: Any) -> Any:
        self.calls.append(f"Order {status}")
        common = {"seller_user_id": USER, "buyer_user_id": "", "credits_amount": 1, "order_id": "", "completed_at": ""}
        return {"data": [{**common, "seat_id": s.seat_id, "transfer_id": "", "status": status} for s in self.sold]}

    def list_tickets(self, _user: str, _sold: Any) -> Any:
        self.calls.append("Inventory")
        return self.owned, self.sold

    def get_page(self, path: str) -> Any:
        self.calls.append("Event")
        found = [part.removeprefix("event_id=") for part in path.split("&")[1:]]
        return {"data": [{"event_id": i, "name": "", "event_date": "", "hall_id": ""} for i in found]}


@pytest.mark.parametrize("number", [1, 50])
def test_number_of_calls_does_not_depend_on_the_tickets(number: int) -> None:
    world: Any = World(number)
    shown = account.list_tickets(world, USER)
    assert (len(shown["purchased"]), len(shown["sold"])) == (number, 2 * number)
    assert world.calls == ["Order COMPLETED", "Order DISPUTED", "Inventory", "Event"]
