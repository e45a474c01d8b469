"""One answer for everybody who asks within a second, fetched by one of them (single flight)."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock
from typing import Generic, NoReturn, TypeVar

from services.chassis.errors import Unknown

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

MAX_AGE = 1.0  # seconds between the moment that an answer speaks of and the moment that it is given
IDLE_SECONDS = 60.0  # an answer that nobody has asked for this long is forgotten


@dataclass(frozen=True)
class _Flight(Generic[T]):
    """An answer, or the reason that there is none, and when it was asked for: it may be as old as that."""

    began: float
    answer: Callable[[], T]


class Fresh(Generic[T]):
    """What `load` answers, never older than `MAX_AGE`, with one `load` at a time however many ask.

    Who asks while one is under way waits for it. An `Unknown` is everybody's answer too, for as long: a neighbour
    that is down is asked once a second, not once a request. Any other exception is for its own caller alone.
    """

    def __init__(self, load: Callable[[], T], clock: Callable[[], float] = time.monotonic) -> None:
        self._load = load
        self._clock = clock
        self._lock = Lock()
        self._last: _Flight[T] | None = None
        self.used = clock()

    def get(self) -> T:
        """The answer. Raises what `load` raises."""
        self.used = asked = self._clock()
        flight = self._usable(asked)
        if flight is None:
            with self._lock:
                flight = self._usable(asked) or self._fly()
        return flight.answer()

    def _usable(self, asked: float) -> _Flight[T] | None:
        # A flight that began after we asked is as fresh as one of our own, however long it took.
        last = self._last
        if last is not None and (last.began >= asked or self._clock() - last.began <= MAX_AGE):
            return last
        return None

    def _fly(self) -> _Flight[T]:
        began = self._clock()
        try:
            answer = self._load()
            self._last = _Flight(began, lambda: answer)
        except Unknown as unknown:
            message = unknown.message
            self._last = _Flight(began, lambda: _raise(message))
        return self._last


def _raise(message: str) -> NoReturn:
    raise Unknown(message)


class FreshByKey(Generic[K, T]):
    """A `Fresh` for each key that has been asked for lately. A key whose `load` raises is not kept."""

    def __init__(self, load: Callable[[K], Callable[[], T]], clock: Callable[[], float] = time.monotonic) -> None:
        self._load = load
        self._clock = clock
        self._lock = Lock()
        self._kept: dict[K, Fresh[T]] = {}

    def get(self, key: K) -> T:
        """The key's answer. Raises what its load raises."""
        with self._lock:
            fresh = self._kept.get(key) or self._added(key)
        try:
            return fresh.get()
        except Unknown:
            raise
        except Exception:
            with self._lock:
                self._kept.pop(key, None)
            raise

    def _added(self, key: K) -> Fresh[T]:
        now = self._clock()
        for idle in [kept for kept, fresh in self._kept.items() if now - fresh.used > IDLE_SECONDS]:
            del self._kept[idle]
        fresh = self._kept[key] = Fresh(self._load(key), self._clock)
        return fresh
