"""Request coalescing for reserves: concurrent reserves of one seat in one process share one `ReserveSeat` call.

The first request for a seat makes the call. Requests that arrive before the call is sent wait for its outcome. If
someone else holds the seat, they all get that refusal without a journal write or a row lock. This is safe because
the row was read after they arrived. A later request starts the next group.

Only refusals are shared, never a hold. The holder always makes their own call, because the refusal that they get names
their order. Without an outcome, or after `MAX_WAIT_SECONDS`, each request makes its own call. A repeated call returns
its stored answer, which can be old, so only the first call of a new hold publishes an outcome.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock
from typing import TypeVar

from prometheus_client import Counter

from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode

T = TypeVar("T")

MAX_WAIT_SECONDS = 0.25  # longer than a call takes, and short for a request that waits in vain
SHARED_REFUSALS = Counter("reserves_lost_together_total", "Reserves refused with the outcome of another request's call")


class PendingReserve:
    """The outcome of a `ReserveSeat` call that others wait for. `holder` is the user that the refusal is not for."""

    def __init__(self) -> None:
        self.is_over = Event()
        self.refusal: ErrorCode | None = None
        self.holder: str | None = None

    def publish(self, refusal: ErrorCode | None = None, holder: str | None = None) -> None:
        """Wake the waiting requests, with a refusal or without an outcome. Only the first call has an effect."""
        if not self.is_over.is_set():
            self.refusal, self.holder = refusal, holder
            self.is_over.set()


class ReserveCoalescer:
    """The pending reserves of this process, by seat. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._unsent: dict[str, PendingReserve] = {}
        self._new_holds: set[str] = set()

    def join(self, seat_id: str, user_id: str, hold_id: str, work: Callable[[], T]) -> T:
        """Return `work()`, which reserves the seat under a new hold, or raise the refusal of the call it joined.

        Waits at most `MAX_WAIT_SECONDS` for the call of another request.
        """
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        while True:
            with self._lock:
                pending = self._unsent.get(seat_id)
                if pending is None:
                    own = self._unsent[seat_id] = PendingReserve()
                    break
            if not pending.is_over.wait(max(0.0, deadline - time.monotonic())) or pending.holder == user_id:
                return self._work_as_new(hold_id, work)
            if pending.refusal:
                SHARED_REFUSALS.inc()
                raise Refused(pending.refusal)
        try:
            return self._work_as_new(hold_id, work)
        finally:
            self._abandon(seat_id, own)

    def close(self, seat_id: str, hold_id: str) -> PendingReserve:
        """Close the seat's group, because the call for `hold_id` is sent now. The caller publishes its outcome."""
        with self._lock:
            if hold_id not in self._new_holds:
                return PendingReserve()  # a repeated call, which no request waits for
            self._new_holds.discard(hold_id)
            return self._unsent.pop(seat_id, None) or PendingReserve()

    def _work_as_new(self, hold_id: str, work: Callable[[], T]) -> T:
        with self._lock:
            self._new_holds.add(hold_id)
        try:
            return work()
        finally:
            with self._lock:
                self._new_holds.discard(hold_id)

    def _abandon(self, seat_id: str, own: PendingReserve) -> None:
        with self._lock:
            if self._unsent.get(seat_id) is own:
                self._unsent.pop(seat_id).publish()
