"""Things that happen at the same moment."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from harness.api_client import ApiResponse

T = TypeVar("T")


def run_concurrently(calls: Iterable[Callable[[], T]]) -> list[T]:
    """Start all calls together, each on a thread of its own; their results in order."""
    work = list(calls)
    start = threading.Barrier(len(work))

    def run(call: Callable[[], T]) -> T:
        start.wait()
        return call()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(run, work))


def outcomes(answers: Sequence[ApiResponse]) -> Counter[str]:
    """How often each came: "200" for a success, "409 SEAT_UNAVAILABLE" for a refusal."""
    return Counter(f"{a.status} {a.error_code}" if a.status >= 400 else str(a.status) for a in answers)
