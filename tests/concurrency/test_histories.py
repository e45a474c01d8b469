"""Recorded histories of clients of the running system are linearizable for every seat."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from harness import Stack
from services.chassis.errors import Refused, Unknown
from tests.concurrency.callers import InventoryCaller, connect_inventory
from tests.concurrency.figures import Figures
from tests.concurrency.linearizability import Op, check
from tests.concurrency.recorder import Recorder, group_by_seat
from tests.concurrency.seat_model import FREE, LOST, OK, SeatModel, mark_lost_locks
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.concurrency, pytest.mark.usefixtures("invariants")]

SECONDS = 8.0
HALL = "HALL-B"
CallResult = tuple[tuple[str, ...], str | None]
"""Arguments and result of an operation."""


def check_histories(recorder: Recorder) -> dict[str, list[Op]]:
    """Return the history of each seat. Fails with a counterexample if one is not linearizable."""
    histories = {seat: mark_lost_locks(ops) for seat, ops in group_by_seat(recorder.ops).items()}
    counterexample = check(histories, SeatModel(), FREE)
    assert counterexample is None, str(counterexample)
    return histories


def report(figures: Figures, name: str, histories: dict[str, list[Op]]) -> Counter[str]:
    """Count the operations by name and result, and add them to the report."""
    ops = [op for history in histories.values() for op in history]
    counts = Counter(f"{op.what} {op.result if op.what != 'look' else ''}".strip() for op in ops)
    figures.add(name, seats=len(histories), operations=len(ops), by_result=dict(sorted(counts.items())))
    return counts


class InventoryClient:
    """A client of Inventory that does random operations on its own and other clients' seats."""

    def __init__(
        self, number: int, caller: InventoryCaller, recorder: Recorder, known: dict[str, tuple[str, str]]
    ) -> None:
        self._name, self._user = f"client {number}", str(uuid4())
        self._dice, self._caller, self._recorder = Random(number), caller, recorder
        self._known = known  # the last order and owner of each seat that any client has read, possibly out of date

    def step(self, seat: str) -> None:
        """Do one operation on `seat`."""
        operation = self._dice.choice(
            (self._reserve, self._reserve, self._release, self._sell, self._update_owner, self._cancel_sale, self._look)
        )
        operation(seat)

    def _run(self, seat: str, what: str, args: tuple[str, ...], method: str, refused: str, **fields: str) -> str | None:
        def call() -> CallResult:
            try:
                response = self._caller.call(method, seat_id=seat, **fields)
            except Refused as refusal:
                return args, str(refusal.code) if what == "reserve" else refused
            except Unknown:
                return args, None
            return args, refused if method == "ReleaseSeat" and not response.released else OK

        return self._recorder.run(self._name, seat, what, call)

    def _reserve(self, seat: str) -> None:
        order = str(uuid4())
        args = (order, self._user)
        fields: dict[str, Any] = {"hold_id": order, "user_id": self._user, "ttl_seconds": 300}
        if self._run(seat, "reserve", args, "ReserveSeat", "", **fields) == OK:
            self._known[seat] = args

    def _release(self, seat: str) -> None:
        order, user = self._order_and_owner(seat)
        self._run(seat, "release", (order, user), "ReleaseSeat", "NOT_HELD", hold_id=order)

    def _sell(self, seat: str) -> None:
        order, user = self._order_and_owner(seat)
        fields = {"key": f"pay:{uuid4()}:1:confirm_seat", "hold_id": order, "order_id": order, "user_id": user}
        fields |= {"price": "1.00", "qr_code_hash": "0" * 64}
        self._run(seat, "sell", (order, user), "ConfirmSeat", "NOT_HELD", **fields)

    def _update_owner(self, seat: str) -> None:
        order, user = self._order_and_owner(seat)
        fields = {"key": f"transfer_confirm:{uuid4()}:1:update_owner", "order_id": order, "expected_owner_id": user}
        fields |= {"new_owner_id": self._user, "qr_code_hash": "1" * 64}
        if self._run(seat, "update_owner", (order, user, self._user), "UpdateOwner", "NOT_SOLD", **fields) == OK:
            self._known[seat] = (order, self._user)

    def _cancel_sale(self, seat: str) -> None:
        order, user = self._order_and_owner(seat)
        fields = {"key": f"refund:{uuid4()}:1:cancel_sale", "order_id": order, "expected_owner_id": user}
        self._run(seat, "cancel_sale", (order, user), "CancelSale", "NOT_SOLD", **fields)

    def _look(self, seat: str) -> None:
        self._recorder.run(self._name, seat, "look", lambda: ((), self._caller.read_seat(seat)))

    def _order_and_owner(self, seat: str) -> tuple[str, str]:
        return self._known.get(seat) or (str(uuid4()), self._user)


def run_clients(steps: list[Callable[[], None]]) -> None:
    """Run the clients concurrently. Each repeats its step until the time is up."""
    deadline = time.monotonic() + SECONDS

    def repeat(step: Callable[[], None]) -> None:
        while time.monotonic() < deadline:
            step()

    with ThreadPoolExecutor(len(steps)) as pool:
        for future in [pool.submit(repeat, step) for step in steps]:
            future.result()


def release_seats(system: TestSystem, caller: InventoryCaller, seats: list[str]) -> None:
    """Release all seats, because they have no orders and would break the invariants."""
    for seat in seats:
        row = system.seat_row(seat)
        if row["status"] == "HELD":
            caller.call("ReleaseSeat", seat_id=seat, hold_id=str(row["hold_id"]))
        elif row["status"] == "SOLD":
            fields = {"order_id": str(row["order_id"]), "expected_owner_id": str(row["owner_user_id"])}
            caller.call("CancelSale", key=f"refund:{uuid4()}:1:cancel_sale", seat_id=seat, **fields)


def test_every_seat_of_inventory_is_linearizable(system: TestSystem, stack: Stack, figures: Figures) -> None:
    recorder, seats, known = Recorder(), [system.seat() for _ in range(6)], dict[str, tuple[str, str]]()
    dice = Random(5)
    with connect_inventory(stack) as caller:
        clients = [InventoryClient(number, caller, recorder, known) for number in range(8)]
        run_clients([lambda client=client: client.step(dice.choice(seats)) for client in clients])  # type: ignore[misc]
        release_seats(system, caller, seats)
    counts = report(figures, "history at Inventory", check_histories(recorder))
    assert all(counts[f"{what} OK"] > 10 for what in ("reserve", "release", "sell", "update_owner", "cancel_sale")), (
        counts
    )


class Customer:
    """A customer at the gateway: reserves, pays, then uses, transfers or refunds the ticket."""

    def __init__(self, system: TestSystem, recorder: Recorder, caller: InventoryCaller, number: int) -> None:
        self._system, self._recorder, self._caller = system, recorder, caller
        self._me, self._friend = system.people(2, "100000.00")
        self._staff = system.staff()
        self._name, self._dice = f"customer {number}", Random(100 + number)

    def step(self, seat: str) -> None:
        """Read a seat, try to buy it, and do something with it."""
        self._recorder.run(self._name, seat, "look", lambda: ((), self._caller.read_seat(seat)))
        order = self._reserve(seat)
        if order is None or self._dice.random() < 0.2:  # abandoned
            return
        self._pay(seat, order)
        next_thing = self._dice.random()
        if next_thing < 0.1:
            self._use_ticket(seat, order, self._me)
        elif next_thing < 0.4:
            self._update_owner(seat, order)
        elif next_thing < 0.9:
            self._refund(seat, order)

    def _reserve(self, seat: str) -> str | None:
        order: list[str] = []

        def call() -> CallResult:
            answer = self._me.reserve(seat)
            if answer.status == 200:
                order.append(answer.data["order_id"])
                return (order[0], self._me.user_id), OK
            assert answer.status == 409, answer
            return ("none", self._me.user_id), answer.error_code

        self._recorder.run(self._name, seat, "reserve", call)
        return order[0] if order else None

    def _pay(self, seat: str, order: str) -> None:
        self._recorder.run(
            self._name, seat, "sell", lambda: ((order, self._me.user_id), _ok(self._me.pay(order).status))
        )

    def _refund(self, seat: str, order: str) -> None:
        def call() -> CallResult:
            return (order, self._me.user_id), _ok(self._staff.refund(order).status)

        self._recorder.run(self._name, seat, "cancel_sale", call)

    def _update_owner(self, seat: str, order: str) -> None:
        initiated = self._me.initiate(seat, self._me.user_id, self._friend.user_id, 10)
        if initiated.error_code == "RATE_LIMITED":  # a phone number gets at most five codes in ten minutes
            return
        transfer = initiated.must(201)["transfer_id"]
        codes = {"seller_otp": self._system.code(self._me), "buyer_otp": self._system.code(self._friend)}

        def call() -> CallResult:
            return (order, self._me.user_id, self._friend.user_id), _ok(self._me.confirm(transfer, **codes).status)

        self._recorder.run(self._name, seat, "update_owner", call)

    def _use_ticket(self, seat: str, order: str, owner: Person) -> None:
        qr = owner.qr(seat).must(200)["qr_payload"]

        def call() -> CallResult:
            result = self._staff.scan(qr, HALL).must(200)["result"]
            return (order, owner.user_id), OK if result == "SUCCESS" else result

        self._recorder.run(self._name, seat, "admit", call)
        self._recorder.run(self._name, seat, "admit", call)


def _ok(status: int) -> str:
    assert status < 500, status
    return OK if status == 200 else LOST


def test_every_seat_behind_the_gateway_is_linearizable(system: TestSystem, stack: Stack, figures: Figures) -> None:
    recorder, dice = Recorder(), Random(6)
    free = [system.seat() for _ in range(4)]

    def choose_seat() -> str:
        if dice.random() < 0.15:  # because transferred, used or abandoned seats do not become available again
            free[dice.randrange(len(free))] = system.seat()
        return dice.choice(free)

    with connect_inventory(stack) as caller:
        customers = [Customer(system, recorder, caller, number) for number in range(8)]
        run_clients([lambda customer=customer: customer.step(choose_seat()) for customer in customers])  # type: ignore[misc]
    counts = report(figures, "history behind the gateway", check_histories(recorder))
    assert all(counts[f"{what} OK"] for what in ("reserve", "sell", "update_owner", "cancel_sale", "admit")), counts
