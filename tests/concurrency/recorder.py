"""Records the operations of clients with their start and end times."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from tests.concurrency.linearizability import NEVER, Op


class Recorder:
    """The history of a run. Thread-safe, because it only appends to a list."""

    def __init__(self) -> None:
        self.ops: list[tuple[str, Op]] = []

    def run(
        self, client: str, seat: str, what: str, call: Callable[[], tuple[tuple[str, ...], str | None]]
    ) -> str | None:
        """Run `call`, record it and return its result.

        `call` returns the arguments and the result of the operation. A result of `None` means that the outcome is
        unknown.
        """
        start = time.perf_counter()
        args, result = call()
        end = NEVER if result is None else time.perf_counter()
        self.ops.append((seat, Op(client, what, args, result, start, end)))
        return result


def group_by_seat(ops: Iterable[tuple[str, Op]]) -> dict[str, list[Op]]:
    """Return the history of each seat."""
    histories: dict[str, list[Op]] = defaultdict(list)
    for seat, op in ops:
        histories[seat].append(op)
    return histories
