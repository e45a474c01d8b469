"""The whole running system, once a session, for every suite that speaks over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from threading import Lock

import pytest

from harness import Stack, runtime
from harness.runtime import container_engine
from harness.runtime.cleanup import take_down

UNLIMITED = {"RATE_LIMIT_PER_MINUTE": "1000000", "RATE_LIMIT_PUBLIC_PER_MINUTE": "1000000"}
SEATS_OF_EVENT_2 = 5_000
CHOICE = container_engine.choose()
IN_CONTAINERS = CHOICE.kind == "docker"


def native_only(reason: str) -> pytest.MarkDecorator:
    """Skip where the system runs in containers, saying why."""
    return pytest.mark.skipif(IN_CONTAINERS, reason=f"STACK=docker: {reason}")


def running(run_dir: Path) -> Iterator[Stack]:
    """The system while it is up; its gateway limits nobody, for all tests call from one address.

    Nobody wants its data: it is not given the seconds that it takes to end in good order.
    """
    with runtime.up(run_dir, env=UNLIMITED, quiet=True) as stack:
        yield stack
        if not IN_CONTAINERS:
            take_down(stack.run_dir)


class Seats:
    """Seats of the seed's second event that no other test of this session was given. Thread-safe."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._lock = Lock()

    def take(self) -> str:
        """The id of a seat that is AVAILABLE. Raises AssertionError when all 5,000 are given out."""
        with self._lock:
            number = next(self._numbers)
        assert number <= SEATS_OF_EVENT_2, "event 2 has no seats left for tests"
        return f"5ea70002-0000-0000-0000-{number:012d}"
