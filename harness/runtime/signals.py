"""Signals of foreground commands: the first one stops the stack, and later ones do not interrupt that."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def set_signal_handler(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    """Install `handler` for SIGINT, SIGTERM and SIGHUP."""
    for number in SIGNALS:
        signal.signal(number, handler)


def interrupt_once() -> None:
    """Raise KeyboardInterrupt on the first signal and ignore later ones, because taking down has a time limit."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        set_signal_handler(signal.SIG_IGN)
        raise KeyboardInterrupt

    set_signal_handler(interrupt)
