"""Starts the whole system for the suites that call it over the network, and gives each test seats of its own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from threading import Lock

import pytest

from harness import Stack, runtime
from harness.runtime import container_engine
from harness.runtime.cleanup import take_down

UNLIMITED = {
    "RATE_LIMIT_PER_MINUTE": "1000000",
    "RATE_LIMIT_PUBLIC_PER_MINUTE": "1000000",
    "EXPENSIVE_CALLS_PER_USER_AND_MINUTE": "0",
    "EXPENSIVE_CALLS_PER_ADDRESS_AND_MINUTE": "0",
}
SEATS_OF_EVENT_2 = 5_000
CHOICE = container_engine.choose()
IN_CONTAINERS = CHOICE.kind == "docker"


def native_only(reason: str) -> pytest.MarkDecorator:
    """Skip a test for this reason when the system runs in containers."""
    return pytest.mark.skipif(IN_CONTAINERS, reason=f"STACK=docker: {reason}")


def running(run_dir: Path) -> Iterator[Stack]:
    """Run the system without rate limits, because all tests call from one address.

    Its processes are killed at the end: no test needs the data, and a clean stop takes seconds.
    """
    with runtime.up(run_dir, env=UNLIMITED, quiet=True) as stack:
        yield stack
        if not IN_CONTAINERS:
            take_down(stack.run_dir)


class SeatPool:
    """Gives each seat of the seed's second event to one test of the session. Thread-safe."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._lock = Lock()

    def take(self) -> str:
        """Return the id of an AVAILABLE seat. Raises AssertionError when all 5,000 are taken."""
        with self._lock:
            number = next(self._numbers)
        assert number <= SEATS_OF_EVENT_2, "event 2 has no seats left: raise the number in the seed of Inventory"
        return f"5ea70002-0000-0000-0000-{number:012d}"
