"""Retries: the same call under the same key until it gets a definite answer or its time is over (rule R1)."""

from __future__ import annotations

import math
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
    insist: float = 0.0,
) -> T:
    """Call `call` until it returns or raises Refused, and return its result.

    `deadline` is a reading of `time.monotonic()`. `on_unknown` gets the error of each try that raised Unknown.
    Raises Unknown when the deadline has passed, when `max_tries` tries have failed, or at once if the neighbour is
    away. A call that must happen is repeated for `insist` seconds although its neighbour is away.
    """
    pause = FIRST_PAUSE
    tries = 0
    away_since = math.inf
    while True:
        try:
            return call()
        except Unknown as unknown:
            on_unknown(unknown)
            tries += 1
            if unknown.is_away:
                away_since = min(away_since, time.monotonic())
            is_useless = unknown.is_away and time.monotonic() - away_since >= insist
            if is_useless or tries == max_tries or time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)  # back off before the same call, bounded by the deadline
            pause = min(pause * 2, LONGEST_PAUSE)
