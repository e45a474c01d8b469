"""Waiting for a condition with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.01


def wait_until(condition: Callable[[], T], seconds: float = 15.0) -> T:
    """Poll `condition` until it is true, and return its value. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"the condition is still {value!r} after {seconds:g} s"
        time.sleep(POLL_SECONDS)
    return value
