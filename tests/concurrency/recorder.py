"""Records what clients did and saw, with the times between which it happened."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from tests.concurrency.linearizability import NEVER, Op


class Recorder:
    """The history of a run. Thread-safe: appending to a list is."""

    def __init__(self) -> None:
        self.ops: list[tuple[str, Op]] = []

    def run(
        self, client: str, seat: str, what: str, call: Callable[[], tuple[tuple[str, ...], str | None]]
    ) -> str | None:
        """Do `call`, which says what was given and answered; `None`: nobody knows. Returns the answer."""
        called = time.perf_counter()
        given, got = call()
        back = NEVER if got is None else time.perf_counter()
        self.ops.append((seat, Op(client, what, given, got, called, back)))
        return got


def partitioned(ops: Iterable[tuple[str, Op]]) -> dict[str, list[Op]]:
    """Each seat's own history."""
    histories: dict[str, list[Op]] = defaultdict(list)
    for seat, op in ops:
        histories[seat].append(op)
    return histories
