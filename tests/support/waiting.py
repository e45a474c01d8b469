"""Waits for conditions with a deadline, so that no test sleeps for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

WAIT_SECONDS = 15.0
POLL_SECONDS = 0.01


def wait_until(condition: Callable[[], T | None], seconds: float = WAIT_SECONDS, what: str = "the condition") -> T:
    """Call `condition` until its result is true, and return that result.

    Raises AssertionError with `what` and the last result after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not reached within {seconds:g} s: {what} (last result: {result!r})"
        time.sleep(POLL_SECONDS)
    return result
