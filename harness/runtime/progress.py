"""Prints that a long step is still running."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS = 3.0  # between two lines


def print_line(text: str) -> None:
    """Print `text` to stderr at once, in one write, because several threads print. A lost reader is ignored."""
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


@contextmanager
def report_every(text: str, report: Callable[[str], object] = print_line, seconds: float = SECONDS) -> Iterator[None]:
    """Report `text` with the elapsed time every 3 s until the block ends."""
    began, ended = time.monotonic(), threading.Event()

    def tick() -> None:
        while not ended.wait(seconds):
            report(f"{text}, {time.monotonic() - began:.0f} s")

    ticker = threading.Thread(target=tick, name="progress", daemon=True)
    try:
        ticker.start()
        yield
    finally:  # also if a signal interrupts the start of the thread
        ended.set()
        if ticker.ident:
            ticker.join()
