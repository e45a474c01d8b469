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
    on_unknown: Callable[[Unknown], object] = lambda _unknown: None,
    insist: bool = False,
) -> T:
    """Call `call` until it returns or raises Refused, and return its result.

    `deadline` is a reading of `time.monotonic()`. `on_unknown` gets the error of each try that raised Unknown.
    Raises Unknown when the deadline has passed, when `max_tries` tries have failed, or at once if the neighbour is
    away. With `insist`, a neighbour that is away is called until the deadline, because the call must happen.
    """
    pause = FIRST_PAUSE
    tries = 0
    while True:
        try:
            return call()
        except Unknown as unknown:
            on_unknown(unknown)
            tries += 1
            is_useless = unknown.is_away and not insist
            if is_useless or tries == max_tries or time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)  # back off before the same call, bounded by the deadline
            pause = min(pause * 2, LONGEST_PAUSE)
