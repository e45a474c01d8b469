"""The end of every command: its exit status, and silence if the reader of its output has gone."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
from typing import NoReturn, TextIO

READER_GONE = 128 + signal.SIGPIPE  # the status of a program that SIGPIPE ends


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and exit with its status. If the reader of its output has gone, as in `| head`, exit silently.

    The default action of SIGPIPE would end the process at once, also for a socket, and leave its stack running.
    """
    try:
        try:
            status = main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not any(map(_has_lost_reader, (sys.stdout, sys.stderr))):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes again at its end
        status = READER_GONE
    sys.exit(status)


def _has_lost_reader(stream: TextIO) -> bool:
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
