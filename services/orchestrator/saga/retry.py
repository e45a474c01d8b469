"""Retries: the same call under the same key until it gets a definite answer or its time is over (rule R1)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from services.chassis.errors import Unknown

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.4  # seconds


def retry_until(
    deadline: float,
    call: Callable[[], T],
    *,
    max_tries: int | None = None,
    on_unknown: Callable[[], object] = lambda: None,
) -> T:
    """Call `call` until it returns or raises Refused, and return its result.

    `deadline` is a reading of `time.monotonic()`. `on_unknown` runs after each try that raised Unknown.
    Raises Unknown when the deadline has passed or `max_tries` tries have failed.
    """
    pause = FIRST_PAUSE
    tries = 0
    while True:
        try:
            return call()
        except Unknown:
            on_unknown()
            tries += 1
            if tries == max_tries or time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)  # back off before the same call, bounded by the deadline
            pause = min(pause * 2, LONGEST_PAUSE)
