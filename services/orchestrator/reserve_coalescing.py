"""A crowd before one seat: who comes before the question for the seat has gone out, loses with its answer.

Of a hundred that want one seat, ninety-nine lose, and each would write to the journal and lock a row to hear it. Here
the first asks, and those who come before his call goes out wait for its answer. Where that is that somebody has the
seat, they are refused with nothing written: the row was read after they came, so it is an answer that they could have
got themselves. Who comes later asks, as the first of the next few.

Only refusals are shared; a seat is had by nobody but who asked for it. Whoever has the seat himself asks himself: the
answer to him names his order. No answer, or no patience left: everybody asks. A call that is made again hears what was
written down for it the first time, so only a hold's first call answers a crowd. With several processes, each has its
own crowds.
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

PATIENCE_SECONDS = 0.25  # longer than an answer takes, and no time for whoever waits in vain
SHARED = Counter("reserves_lost_together_total", "Reserves refused by the answer to another's")


class Question:
    """Is the seat to be had? `holder` is whom a refusal does not concern, as far as that is known."""

    def __init__(self) -> None:
        self.over = Event()
        self.refusal: ErrorCode | None = None
        self.holder: str | None = None

    def end(self, refusal: ErrorCode | None = None, holder: str | None = None) -> None:
        """Tell those who wait; without a refusal, that nothing is known. The first end counts."""
        if not self.over.is_set():
            self.refusal, self.holder = refusal, holder
            self.over.set()


class Crowds:
    """The crowds of this process, by seat. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._not_put: dict[str, Question] = {}
        self._new_holds: set[str] = set()

    def ask(self, seat_id: str, user_id: str, hold_id: str, work: Callable[[], T]) -> T:
        """`work()`, which asks for the seat under a new hold; or Refused, as a question that went out meanwhile was.

        Waits `PATIENCE_SECONDS` at most for the answers of others.
        """
        patience = time.monotonic() + PATIENCE_SECONDS
        while True:
            with self._lock:
                question = self._not_put.get(seat_id)
                if question is None:
                    own = self._not_put[seat_id] = Question()
                    break
            if not question.over.wait(max(0.0, patience - time.monotonic())) or question.holder == user_id:
                return self._worked(hold_id, work)
            if question.refusal:
                SHARED.inc()
                raise Refused(question.refusal)
        try:
            return self._worked(hold_id, work)
        finally:
            self._withdraw(seat_id, own)

    def put(self, seat_id: str, hold_id: str) -> Question:
        """A call for the seat goes out now: the question of those who wait. Whoever calls this ends it."""
        with self._lock:
            if hold_id not in self._new_holds:
                return Question()  # nobody waits for this one
            self._new_holds.discard(hold_id)
            return self._not_put.pop(seat_id, None) or Question()

    def _worked(self, hold_id: str, work: Callable[[], T]) -> T:
        with self._lock:
            self._new_holds.add(hold_id)
        try:
            return work()
        finally:
            with self._lock:
                self._new_holds.discard(hold_id)

    def _withdraw(self, seat_id: str, own: Question) -> None:
        with self._lock:
            if self._not_put.get(seat_id) is own:
                self._not_put.pop(seat_id).end()
