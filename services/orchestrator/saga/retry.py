"""Asking again: the same question under the same key until it is answered or the time is up (rule R1)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from services.chassis.errors import Unknown

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.4  # seconds


def ask(call: Callable[[], T], deadline: float, doubt: Callable[[], object] = lambda: None, asks: int = 0) -> T:
    """What `call` answers. `doubt` is told of each answer that stayed out.

    `deadline` is a reading of `time.monotonic()`; `asks` is how often to ask at most, 0: as often as there is time.
    Raises Refused at once, Unknown when the deadline has passed or `asks` are used up.
    """
    pause = FIRST_PAUSE
    while True:
        try:
            return call()
        except Unknown:
            doubt()
            asks -= 1
            if asks == 0 or time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)  # back off before the same question; bounded by the deadline
            pause = min(pause * 2, LONGEST_PAUSE)
