"""A crowd before one seat: who comes while this process asks for the seat already, loses with that answer.

Of a hundred that want one seat, ninety-nine lose, and each would write to the journal and lock a row to hear it. Here
those who come while the question is on its way wait for its answer, and where it says that somebody has the seat, they
are refused with nothing written. That is the answer which they would have got at that moment, if they asked:

    the one who asked got the seat      at that moment it is held: so for everybody who is waiting
    the one who asked was refused       somebody had it when the row was read: so for those who waited before it was
    no answer, or no patience left      nothing is known: everybody asks for himself

Whoever has the seat himself is never told so by another's answer: his own names his order. Only refusals are shared; a
seat is had by nobody but who asked for it. With several processes, each has its own crowd.
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
    """Somebody asks for a seat; `is_put` once a call is on its way."""

    def __init__(self, seat_id: str) -> None:
        self.seat_id = seat_id
        self.is_put = False
        self.over = Event()
        self.refusal: ErrorCode | None = None
        self.holder: str | None = None  # whom its answer does not concern
        self.is_for_all = False


class Crowds:
    """The crowds of this process, by seat. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._questions: dict[str, Question] = {}

    def ask(self, seat_id: str, user_id: str, work: Callable[[], T]) -> T:
        """`work()`, which asks for the seat; or Refused, as the question was that is on its way already.

        Waits `PATIENCE_SECONDS` at most for the answers of others.
        """
        patience = time.monotonic() + PATIENCE_SECONDS
        while True:
            with self._lock:
                question = self._questions.get(seat_id)
                if question is None:
                    own = self._questions[seat_id] = Question(seat_id)
                    break
                early = not question.is_put
            if not question.over.wait(max(0.0, patience - time.monotonic())) or question.holder == user_id:
                return work()
            if question.refusal and (early or question.is_for_all):
                SHARED.inc()
                raise Refused(question.refusal)
        try:
            return work()
        finally:
            self._end(own)

    def put(self, seat_id: str) -> Question | None:
        """A call for the seat goes out now: the question that it answers, None where nobody can wait for it."""
        with self._lock:
            question = self._questions.get(seat_id)
            if question:
                question.is_put = True
            return question

    def got(self, question: Question | None, holder: str) -> None:
        """The call has the seat for `holder`."""
        self._end(question, ErrorCode.SEAT_UNAVAILABLE, holder, is_for_all=True)

    def lost(self, question: Question | None, refusal: ErrorCode, holder: str | None) -> None:
        """The call was refused; `holder` has the seat, as far as that is known."""
        self._end(question, refusal, holder)

    def _end(
        self,
        question: Question | None,
        refusal: ErrorCode | None = None,
        holder: str | None = None,
        is_for_all: bool = False,
    ) -> None:
        """The first to end a question has its answer."""
        with self._lock:
            if question is None or question.over.is_set():
                return
            question.refusal, question.holder, question.is_for_all = refusal, holder, is_for_all
            del self._questions[question.seat_id]
            question.over.set()
