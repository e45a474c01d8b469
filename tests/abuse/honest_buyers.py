"""Customers who buy one ticket each while an attack runs."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from tests.abuse.addresses import from_address
from tests.support.system import TestSystem

ADDRESS = "127.9.9.9"
PAUSE_SECONDS = 0.1  # between two purchases, so that the buyers are no load themselves


class HonestBuyers:
    """Buys a ticket with a new account again and again, from an address of its own, until the block ends.

    At least one purchase begins during the block. `seconds` lists how long each purchase took.
    """

    def __init__(self, system: TestSystem) -> None:
        self.seconds: list[float] = []
        self._system = system
        self._failures: list[BaseException] = []
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="honest-buyers", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._has_ended.set()
        self._thread.join()
        if self._failures:  # a failure of the block often follows from it, because no purchase came
            failure = AssertionError("an honest purchase failed during the attack")
            if error is not None:
                failure.add_note(f"The block of the attack failed, too: {error!r}")
            raise failure from self._failures[0]
        if error is None:
            assert self.seconds, "no honest purchase ran during the attack"

    def _run(self) -> None:
        try:
            self._buy()
            while not self._has_ended.wait(PAUSE_SECONDS):
                self._buy()
        except BaseException as failure:  # reported by the thread of the test
            self._failures.append(failure)

    def _buy(self) -> None:
        buyer = from_address(self._system.person(), ADDRESS)
        seat = self._system.seat()
        began = time.perf_counter()
        self._system.buy_seat(buyer, seat)
        self.seconds.append(time.perf_counter() - began)
        row = self._system.seat_row(seat)
        assert (row["status"], str(row["owner_user_id"])) == ("SOLD", buyer.user_id)
