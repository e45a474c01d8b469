"""Compares the model with the databases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.saga.in_process.in_process_system import InProcessSystem
from tests.saga.properties.model import Model

MISSING = "missing"  # the id of an order or transfer that an action should have created, but did not


@dataclass(frozen=True)
class SystemState:
    """The state of seats, users, orders and transfers in the databases, by their ids."""

    seats: Mapping[str, tuple[str, str | None]]
    balances: Mapping[str, tuple[Decimal, Decimal]]
    statuses: Mapping[str, str]


@dataclass(frozen=True)
class StateComparison:
    """Reads the state of the system, and finds its differences to a model. The model has names instead of ids."""

    system: InProcessSystem
    user_ids: Mapping[str, UUID]
    seat_ids: Mapping[str, UUID]

    def read_state(self, model: Model) -> SystemState:
        """Read the state of everything that the model contains."""
        orders = [order for order in model.orders if order != MISSING]
        transfers = [transfer for transfer in model.transfers if transfer != MISSING]
        return SystemState(
            self.system.owners(self.seat_ids.values()),
            self.system.balances(self.user_ids.values()),
            self.system.statuses(orders, transfers),
        )

    def find_differences(self, model: Model, state: SystemState) -> list[str]:
        """Return one line for each difference between model and state."""
        if MISSING in model.orders or MISSING in model.transfers:
            return ["the system has no order or transfer for the action of the model"]
        found = {**state.statuses, **state.seats, **state.balances}
        names = {str(id_): name for name, id_ in (*self.seat_ids.items(), *self.user_ids.items())}
        return [
            f"{names.get(id_, id_)}: {found.get(id_)}, model {expected}"
            for id_, expected in self._list_expected(model).items()
            if found.get(id_) != expected
        ]

    def _list_expected(self, model: Model) -> dict[str, Any]:
        expected: dict[str, Any] = {id_: order.status for id_, order in model.orders.items()}
        expected |= {id_: transfer.status for id_, transfer in model.transfers.items()}
        for name, seat in model.seats.items():
            owner = str(self.user_ids[seat.owner]) if seat.owner else None
            expected[str(self.seat_ids[name])] = (seat.status, owner)
        for name, user in model.users.items():
            expected[str(self.user_ids[name])] = (user.balance, user.frozen)
        return expected
