"""What stays in the foreground with a system: the signals that end it, and a system of its own that ends with it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from harness.runtime.cleanup import make_room, take_down
from harness.runtime.compose import ROOT
from harness.runtime.run_directory import RunDir
from harness.runtime.stack import Stack

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def upon_signals(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    """Have `handler` called for whatever is to end this process."""
    for number in SIGNALS:
        signal.signal(number, handler)


def interrupt_once() -> None:
    """From now on the first signal raises KeyboardInterrupt; those after it find us taking down, which is bounded."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        upon_signals(signal.SIG_IGN)
        raise KeyboardInterrupt

    upon_signals(interrupt)


@contextmanager
def own_stack(name: str, env: Mapping[str, str], quiet: bool = False) -> Iterator[Stack]:
    """A system in .run/NAME, from empty databases; taken down at the end. Raises StackError."""
    directory = RunDir(ROOT / ".run" / name)
    make_room(directory)
    take_down(directory, volumes=True)
    with Stack.up(directory.path, env=env, quiet=quiet) as stack:
        yield stack
