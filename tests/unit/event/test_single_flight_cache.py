"""One answer for everybody who asks within a second, fetched by one of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event as Signal
from typing import Any

import pytest

from services.chassis.errors import Refused, Unknown
from services.contracts.errors import ErrorCode
from services.event.single_flight_cache import IDLE_SECONDS, Fresh, FreshByKey
from tests.unit.event.event_service import Clock

pytestmark = pytest.mark.unit


class Source:
    """Counts how often it is asked; raises what it is told to."""

    def __init__(self, clock: Clock, takes: float = 0.0) -> None:
        self.clock, self.takes = clock, takes
        self.asked = 0
        self.failure: Exception | None = None

    def __call__(self) -> int:
        self.asked += 1
        self.clock.now += self.takes
        if self.failure:
            raise self.failure
        return self.asked


def test_an_answer_serves_for_a_second_from_the_moment_that_it_was_asked_for() -> None:
    clock = Clock()
    source = Source(clock, takes=0.3)
    fresh = Fresh(source, clock)
    assert fresh.get() == 1
    clock.now += 0.7
    assert fresh.get() == 1
    clock.now += 0.1
    assert fresh.get() == 2


def test_of_fifty_who_ask_at_once_one_asks_the_neighbour() -> None:
    entered, gate, asked = Signal(), Signal(), []

    def load() -> int:
        asked.append(1)
        entered.set()
        assert gate.wait(timeout=10)
        return len(asked)

    fresh: Fresh[int] = Fresh(load)
    with ThreadPoolExecutor(50) as pool:
        first = pool.submit(fresh.get)
        assert entered.wait(timeout=10)
        others = [pool.submit(fresh.get) for _ in range(49)]
        gate.set()
        assert {future.result() for future in [first, *others]} == {1}
    assert len(asked) == 1


def test_a_slow_neighbour_is_not_asked_once_by_each_who_waited() -> None:
    clock, entered, gate, asked = Clock(), Signal(), Signal(), []

    def load() -> int:
        asked.append(1)
        entered.set()
        assert gate.wait(timeout=10)
        clock.now += 5  # longer than an answer lasts
        return len(asked)

    fresh: Fresh[int] = Fresh(load, clock)
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(fresh.get)
        assert entered.wait(timeout=10)
        clock.now += 0.5
        others = [pool.submit(fresh.get) for _ in range(19)]
        gate.set()
        assert first.result() == 1
        assert {future.result() for future in others} <= {1, 2, 3}
    assert len(asked) <= 3


def test_a_neighbour_that_is_down_is_asked_once_a_second() -> None:
    clock = Clock()
    source = Source(clock)
    source.failure = Unknown("no answer")
    fresh = Fresh(source, clock)
    for _ in range(5):
        with pytest.raises(Unknown, match="no answer"):
            fresh.get()
    assert source.asked == 1
    source.failure = None
    clock.now += 1.1
    assert fresh.get() == 2


def test_a_key_that_is_refused_is_not_kept() -> None:
    clock, made = Clock(), []

    def load(key: str) -> Source:
        made.append(key)
        source = Source(clock)
        source.failure = Refused(ErrorCode.EVENT_NOT_FOUND)
        return source

    fresh: FreshByKey[str, Any] = FreshByKey(load, clock)
    for _ in range(2):
        with pytest.raises(Refused):
            fresh.get("a")
    assert made == ["a", "a"]


def test_a_key_that_nobody_asks_for_is_forgotten() -> None:
    clock, made = Clock(), []

    def load(key: str) -> Source:
        made.append(key)
        return Source(clock)

    fresh: FreshByKey[str, Any] = FreshByKey(load, clock)
    fresh.get("a")
    clock.now += IDLE_SECONDS + 1
    fresh.get("b")
    fresh.get("a")
    assert made == ["a", "b", "a"]
