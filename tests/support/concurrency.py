"""Runs calls at the same moment, and counts their outcomes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from harness.api_client import ApiResponse

T = TypeVar("T")


def run_concurrently(calls: Iterable[Callable[[], T]]) -> list[T]:
    """Start each call on its own thread at the same moment, and return the results in order."""
    work = list(calls)
    start = threading.Barrier(len(work))

    def run(call: Callable[[], T]) -> T:
        start.wait()
        return call()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(run, work))


def outcomes(answers: Sequence[ApiResponse]) -> Counter[str]:
    """Count the responses by outcome, such as "200" or "409 SEAT_UNAVAILABLE"."""
    return Counter(f"{a.status} {a.error_code}" if a.status >= 400 else str(a.status) for a in answers)
