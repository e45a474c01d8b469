"""SingleFlightCache: one load for concurrent callers, and a value that is valid for a second."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event as Signal
from threading import Semaphore
from typing import Any

import pytest

from services.chassis.errors import Refused, Unknown
from services.chassis.single_flight_cache import IDLE_SECONDS, SingleFlightCache, SingleFlightCacheByKey
from services.contracts.errors import ErrorCode
from tests.unit.event.event_service import Clock

pytestmark = pytest.mark.unit


class CountingLoad:
    """A load that returns its number of calls, or raises `failure`."""

    def __init__(self, clock: Clock, takes: float = 0.0) -> None:
        self.clock, self.takes = clock, takes
        self.calls = 0
        self.failure: Exception | None = None

    def __call__(self) -> int:
        self.calls += 1
        self.clock.now += self.takes
        if self.failure:
            raise self.failure
        return self.calls


def test_a_value_is_valid_for_a_second_from_its_load() -> None:
    clock = Clock()
    load_value = CountingLoad(clock, takes=0.3)
    cache = SingleFlightCache(load_value, clock)
    assert cache.get() == 1
    clock.now += 0.7
    assert cache.get() == 1
    clock.now += 0.1
    assert cache.get() == 2


def test_without_an_age_callers_share_only_a_load_that_began_later() -> None:
    entered, waiting, gate, calls = Signal(), Semaphore(0), Signal(), []

    def load() -> int:
        calls.append(1)
        entered.set()
        assert gate.wait(timeout=10)
        return len(calls)

    cache: SingleFlightCache[int] = SingleFlightCache(load, before_waiting=waiting.release, max_age=0.0)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(cache.get)
        assert entered.wait(timeout=10)
        others = [pool.submit(cache.get) for _ in range(2)]
        for _ in others:
            assert waiting.acquire(timeout=10)
        gate.set()
        assert [first.result(10), *(other.result(10) for other in others)] == [1, 2, 2]


def test_fifty_concurrent_callers_share_one_load() -> None:
    entered, gate, calls = Signal(), Signal(), []

    def load() -> int:
        calls.append(1)
        entered.set()
        assert gate.wait(timeout=10)
        return len(calls)

    cache: SingleFlightCache[int] = SingleFlightCache(load)
    with ThreadPoolExecutor(50) as pool:
        first = pool.submit(cache.get)
        assert entered.wait(timeout=10)
        others = [pool.submit(cache.get) for _ in range(49)]
        gate.set()
        assert {future.result() for future in [first, *others]} == {1}
    assert len(calls) == 1


def test_callers_of_a_slow_load_do_not_each_load_again() -> None:
    clock, entered, gate, calls = Clock(), Signal(), Signal(), []

    def load() -> int:
        calls.append(1)
        entered.set()
        assert gate.wait(timeout=10)
        clock.now += 5  # longer than MAX_AGE
        return len(calls)

    cache: SingleFlightCache[int] = SingleFlightCache(load, clock)
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(cache.get)
        assert entered.wait(timeout=10)
        clock.now += 0.5
        others = [pool.submit(cache.get) for _ in range(19)]
        gate.set()
        assert first.result() == 1
        assert {future.result() for future in others} <= {1, 2, 3}
    assert len(calls) <= 3


def test_an_unknown_is_cached_for_a_second() -> None:
    clock = Clock()
    load_value = CountingLoad(clock)
    load_value.failure = Unknown("no answer")
    cache = SingleFlightCache(load_value, clock)
    for _ in range(5):
        with pytest.raises(Unknown, match="no answer"):
            cache.get()
    assert load_value.calls == 1
    load_value.failure = None
    clock.now += 1.1
    assert cache.get() == 2


def test_a_refused_key_is_not_cached() -> None:
    clock, made = Clock(), []

    def load(key: str) -> CountingLoad:
        made.append(key)
        load_value = CountingLoad(clock)
        load_value.failure = Refused(ErrorCode.EVENT_NOT_FOUND)
        return load_value

    cache: SingleFlightCacheByKey[str, Any] = SingleFlightCacheByKey(load, clock)
    for _ in range(2):
        with pytest.raises(Refused):
            cache.get("a")
    assert made == ["a", "a"]


def test_an_idle_key_is_dropped() -> None:
    clock, made = Clock(), []

    def load(key: str) -> CountingLoad:
        made.append(key)
        return CountingLoad(clock)

    cache: SingleFlightCacheByKey[str, Any] = SingleFlightCacheByKey(load, clock)
    cache.get("a")
    clock.now += IDLE_SECONDS + 1
    cache.get("b")
    cache.get("a")
    assert made == ["a", "b", "a"]


def test_callers_that_waited_for_a_failed_load_get_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each of them would wait for the timeout of a load of its own, one after another."""
    monkeypatch.setattr("services.chassis.single_flight_cache.WAIT_SECONDS", 60.0)
    entered, gate, calls = Signal(), Signal(), []

    def load() -> int:
        calls.append(1)
        entered.set()
        assert gate.wait(timeout=10)
        raise Unknown("Inventory did not answer")

    clock = Clock()
    cache: SingleFlightCache[int] = SingleFlightCache(load, clock)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(cache.get)
        assert entered.wait(timeout=10)
        clock.now += 0.1
        others = [pool.submit(cache.get) for _ in range(7)]
        clock.now += 2.0  # longer than a result is valid
        gate.set()
        assert [str(future.exception()) for future in (first, *others)] == ["Inventory did not answer"] * 8
    assert len(calls) == 1


def test_nobody_waits_for_a_load_that_is_useless() -> None:
    entered, gate = Signal(), Signal()

    def load() -> int:
        entered.set()
        assert gate.wait(timeout=10)
        return 1

    def refuse() -> None:
        raise Unknown("Inventory is away")

    cache: SingleFlightCache[int] = SingleFlightCache(load, before_waiting=refuse)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.get)
        assert entered.wait(timeout=10)
        with pytest.raises(Unknown, match="away"):
            cache.get()
        gate.set()
        assert first.result() == 1


def test_a_load_that_takes_too_long_holds_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.chassis.single_flight_cache.WAIT_SECONDS", 0.05)
    entered, gate = Signal(), Signal()

    def load() -> int:
        entered.set()
        assert gate.wait(timeout=10)
        return 1

    cache: SingleFlightCache[int] = SingleFlightCache(load)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.get)
        assert entered.wait(timeout=10)
        with pytest.raises(Unknown, match="too long"):
            cache.get()
        gate.set()
        assert first.result() == 1
