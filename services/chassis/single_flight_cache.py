"""A cache with single flight: concurrent callers share one load, and its result is valid for a second by default."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock
from typing import Generic, NoReturn, TypeVar

from services.chassis.errors import Unknown

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

MAX_AGE = 1.0  # seconds from the start of a load to the last use of its result
WAIT_SECONDS = 1.5
IDLE_SECONDS = 60.0  # a key that is unused for this long is dropped


@dataclass(frozen=True)
class _Load(Generic[T]):
    """A finished load. `get_result` returns its value or raises its Unknown. The value can be as old as the start."""

    started: float
    get_result: Callable[[], T]


class SingleFlightCache(Generic[T]):
    """The result of `load`, at most `max_age` seconds old, with one load at a time.

    With a `max_age` of 0, a caller gets only the result of a load that started after its call.

    Concurrent callers wait for the load in progress, at most WAIT_SECONDS. `before_waiting` raises Unknown if a wait is
    useless. An Unknown is cached for `max_age` from the end of its load, so a service that is down gets one request in
    that time. Any other exception reaches only the caller that ran the load.
    """

    def __init__(
        self,
        load: Callable[[], T],
        clock: Callable[[], float] = time.monotonic,
        before_waiting: Callable[[], object] = lambda: None,
        max_age: float | None = None,
    ) -> None:
        self._load = load
        self._clock = clock
        self._before_waiting = before_waiting
        self._max_age = MAX_AGE if max_age is None else max_age
        self._lock = Lock()
        self._last: _Load[T] | None = None
        self.used_at = clock()

    def get(self) -> T:
        """The cached or loaded value. Raises the exceptions of `load`."""
        self.used_at = called_at = self._clock()
        load = self._find_valid(called_at)
        if load is None:
            self._wait_for_turn()
            try:
                load = self._find_valid(called_at) or self._run_load()
            finally:
                self._lock.release()
        return load.get_result()

    def _wait_for_turn(self) -> None:
        """Acquire the lock. Raises Unknown, so that a service that is silent does not take every thread."""
        if self._lock.acquire(blocking=False):
            return
        self._before_waiting()
        if not self._lock.acquire(timeout=WAIT_SECONDS):
            raise Unknown("The answer takes too long. Try again shortly.")

    def _find_valid(self, called_at: float) -> _Load[T] | None:
        # A load that started after this call is as fresh as a new one, even if it took longer than that.
        last = self._last
        if last is not None and (last.started >= called_at or self._clock() - last.started <= self._max_age):
            return last
        return None

    def _run_load(self) -> _Load[T]:
        started = self._clock()
        try:
            value = self._load()
            self._last = _Load(started, lambda: value)
        except Unknown as unknown:
            message = unknown.message
            self._last = _Load(self._clock(), lambda: _raise(message))  # every caller that waited for it gets it
        return self._last


def _raise(message: str) -> NoReturn:
    raise Unknown(message)


class SingleFlightCacheByKey(Generic[K, T]):
    """A SingleFlightCache per key. It drops idle keys, and keys whose load raises anything but Unknown."""

    def __init__(
        self,
        make_load: Callable[[K], Callable[[], T]],
        clock: Callable[[], float] = time.monotonic,
        before_waiting: Callable[[], object] = lambda: None,
        max_age: float | None = None,
    ) -> None:
        self._make_load = make_load
        self._options = clock, before_waiting, max_age
        self._clock = clock
        self._lock = Lock()
        self._caches: dict[K, SingleFlightCache[T]] = {}

    def get(self, key: K) -> T:
        """The value of a key. Raises the exceptions of its load."""
        with self._lock:
            cache = self._caches.get(key) or self._add(key)
        try:
            return cache.get()
        except Unknown:
            raise
        except Exception:
            with self._lock:
                self._caches.pop(key, None)
            raise

    def _add(self, key: K) -> SingleFlightCache[T]:
        now = self._clock()
        for idle in [kept for kept, cache in self._caches.items() if now - cache.used_at > IDLE_SECONDS]:
            del self._caches[idle]
        cache = self._caches[key] = SingleFlightCache(self._make_load(key), *self._options)
        return cache
