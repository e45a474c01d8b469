"""What stays in the foreground with a system: the signals that end it, and a system of its own that ends with it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def set_signal_handler(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    """Have `handler` called for whatever is to end this process."""
    for number in SIGNALS:
        signal.signal(number, handler)


def interrupt_once() -> None:
    """From now on the first signal raises KeyboardInterrupt; those after it find us taking down, which is bounded."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        set_signal_handler(signal.SIG_IGN)
        raise KeyboardInterrupt

    set_signal_handler(interrupt)
