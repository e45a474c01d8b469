"""Limits what a neighbour that is slow or away can do to this process.

A neighbour is a service, a database, a broker or an API that this process calls. Every client of one goes through a
`Neighbour`, which applies two rules:

circuit breaker   A neighbour without an answer for `AWAY_SECONDS` is away. Calls to it then fail at once, except for
                  one call at a time that probes it. The first answer ends this.
bulkhead          A call holds one of the neighbour's slots, so only a share of the threads can wait for it. Without a
                  free slot, a call waits as long as the slots still change hands, and otherwise fails at once.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from threading import Lock
from types import TracebackType
from typing import Self

from prometheus_client import Counter, Gauge

from services.chassis.errors import Away, NoAnswer, Unknown

logger = logging.getLogger(__name__)

AWAY_SECONDS = 0.3  # a restart of a container or a new connection to the broker is often faster
PROBE_PAUSE = 0.1  # between two probes of a neighbour that is away
PROBE_SECONDS = 0.5  # the timeout of a probe of a service that answers in milliseconds
STALLED_SECONDS = 0.5  # a healthy neighbour on a busy machine frees a slot much sooner
LONGEST_WAIT = 2.0  # for a slot
UNLIMITED = 1_000_000

WAITING = Gauge("neighbour_calls_in_progress", "Calls that wait for the neighbour's answer", ["neighbour"])
IS_AWAY = Gauge("neighbour_away", "1 while calls to the neighbour fail at once", ["neighbour"])
REFUSALS = Counter("neighbour_refusals_total", "Calls that failed at once", ["neighbour", "reason"])


class Slots:
    """A semaphore that serves waiting threads in order, and that notices when its slots stop changing hands."""

    def __init__(self, number: int, stalled_seconds: float = STALLED_SECONDS) -> None:
        self._number = self._free = number
        self._stalled_seconds = stalled_seconds
        self._lock = Lock()
        self._waiting: deque[Lock] = deque()
        self._moved_at = 0.0  # when a slot was last taken, while the slots are all taken

    @property
    def taken(self) -> int:
        """The number of slots in use."""
        return self._number - self._free

    @property
    def waiting(self) -> int:
        """The number of threads that wait for a slot."""
        return len(self._waiting)

    def take(self, longest_wait: float = LONGEST_WAIT) -> bool:
        """Take a slot. False if none became free within `longest_wait`, or if the slots stopped changing hands."""
        with self._lock:
            if self._free:
                self._free -= 1
                if not self._free:
                    self._moved_at = time.monotonic()
                return True
            turn = Lock()
            turn.acquire()
            self._waiting.append(turn)
        return self._wait(turn, time.monotonic() + longest_wait)

    def release(self) -> None:
        """Give the slot to the thread that has waited longest, or free it."""
        with self._lock:
            if self._waiting:
                self._moved_at = time.monotonic()
                self._waiting.popleft().release()
            else:
                self._free += 1

    def _wait(self, turn: Lock, deadline: float) -> bool:
        while True:
            seconds = min(deadline, self._moved_at + self._stalled_seconds) - time.monotonic()
            if seconds > 0:
                if turn.acquire(timeout=seconds):
                    return True
                continue
            with self._lock:
                if turn not in self._waiting:
                    return True  # a slot was given to this thread at this moment
                self._waiting.remove(turn)
                return False


class Neighbour:
    """The circuit breaker and the bulkhead of one neighbour. Thread-safe.

    `slots` is the number of threads that may wait for it at once. A probe waits at most `probe_seconds`.
    """

    def __init__(
        self,
        name: str,
        slots: int = UNLIMITED,
        stalled_seconds: float = STALLED_SECONDS,
        probe_seconds: float = math.inf,
    ) -> None:
        self.name = name
        self.probe_seconds = probe_seconds
        self._slots = Slots(slots, stalled_seconds)
        self._lock = Lock()
        self._answered_at = 0.0
        self._failing_since: float | None = None
        self._is_away = False
        self._is_probing = False
        self._probe_at = 0.0
        WAITING.labels(name).set_function(lambda: self._slots.taken)
        IS_AWAY.labels(name).set_function(lambda: self._is_away)

    def calling(self) -> Call:
        """Return a context manager for one call. Entering it raises Away if the call cannot be made now.

        The block raises NoAnswer if the neighbour did not answer. Any other end of the block counts as an answer.
        """
        return Call(self)

    def refuse_if_away(self) -> None:
        """Raise Away if a call would fail at once. A caller uses it before work that is useless without the call."""
        if self._is_away and (self._is_probing or time.monotonic() < self._probe_at):
            raise self._refuse("away", f"{self.name} is away")

    # ── for Call

    def admit(self) -> bool:
        """Take a slot. Return whether the call probes a neighbour that is away. Raises Away."""
        is_probe = self._is_away and self._begin_probe()
        if not self._slots.take(0.0 if is_probe else LONGEST_WAIT):
            if is_probe:
                self._end_probe()
            raise self._refuse("busy", f"{self.name} is busy")
        return is_probe

    def leave(self, started: float, is_probe: bool, error: BaseException | None) -> None:
        """Release the slot and note whether the neighbour answered."""
        self._slots.release()
        if isinstance(error, NoAnswer) and not error.is_noted:
            error.is_noted, error.is_away = True, is_probe
            self._note_failure(started)
        elif error is None or isinstance(error, Exception):
            self.note_answer()
        if is_probe:
            self._end_probe()

    def _begin_probe(self) -> bool:
        """Start a probe. False if the neighbour has just answered another call. Raises Away if no probe is due."""
        with self._lock:
            if not self._is_away:
                return False
            if self._is_probing or time.monotonic() < self._probe_at:
                raise self._refuse("away", f"{self.name} is away")
            self._is_probing = True
            return True

    def _end_probe(self) -> None:
        with self._lock:
            self._is_probing = False
            self._probe_at = time.monotonic() + PROBE_PAUSE

    def note_answer(self) -> None:
        """Note that the neighbour answered, so that it is not away."""
        self._answered_at = time.monotonic()
        if self._failing_since is None:
            return
        with self._lock:
            self._failing_since = None
            if self._is_away:
                self._is_away = False
                logger.info("%s answers again", self.name)

    def _note_failure(self, started: float) -> None:
        with self._lock:
            if self._answered_at > started:
                return  # it answered another call meanwhile
            self._failing_since = min(started, self._failing_since or started)
            if not self._is_away and time.monotonic() - self._failing_since >= AWAY_SECONDS:
                self._is_away = True
                logger.warning("%s is away: calls to it fail at once until it answers a probe", self.name)

    def _refuse(self, reason: str, message: str) -> Unknown:
        REFUSALS.labels(self.name, reason).inc()
        return Away(f"{message}. Try again shortly.")


class Call:
    """One call to a neighbour."""

    __slots__ = ("_is_probe", "_neighbour", "_started")

    def __init__(self, neighbour: Neighbour) -> None:
        self._neighbour = neighbour
        self._is_probe = False
        self._started = 0.0

    def __enter__(self) -> Self:
        self._is_probe = self._neighbour.admit()
        self._started = time.monotonic()
        return self

    def limit(self, seconds: float) -> float:
        """Return the timeout of this call, which is shorter for a probe."""
        return min(seconds, self._neighbour.probe_seconds) if self._is_probe else seconds

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._neighbour.leave(self._started, self._is_probe, error)
