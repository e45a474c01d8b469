"""`python -m harness.dashboard`: a system, a page that shows it live, and locust with its web UI, until Ctrl-C.

The exit status is locust's: 0 only if every invariant held when its users had gone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from harness import runtime
from harness.dashboard.server import Server
from harness.dashboard.watch import Watch
from harness.errors import StackError
from harness.runtime import compose, ports
from harness.runtime.signals import interrupt_once, set_signal_handler
from harness.runtime.stack import Stack

PAGE_PORT, LOCUST_PORT = 8090, 8089  # where they are free
LOCUSTFILE = "tests/concurrency/locustfile.py"
ENV = {  # nobody is limited, and what is abandoned comes free while one looks
    "RATE_LIMIT_PER_MINUTE": "1000000",
    "RATE_LIMIT_PUBLIC_PER_MINUTE": "1000000",
    "HOLD_TTL_SECONDS": "15",
}
LEAVE_SECONDS = 60.0  # for locust's users to finish, and for its last look at the invariants


def main() -> int:
    """Put everything up, wait for Ctrl-C or for locust to end, take everything down. The exit status."""
    given = _parser().parse_args()
    interrupt_once()
    leave = threading.Event()
    try:
        with _system(given.attach) as stack, _page(stack) as page:
            set_signal_handler(lambda _number, _frame: leave.set())  # also while all is taken down, which is bounded
            return _played(stack, page, given.rest, leave)
    except StackError as error:
        print(f"the system did not come up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harness.dashboard", description=__doc__)
    parser.add_argument("--attach", metavar="RUN_DIR", help="show the system that runs there, and leave it running")
    parser.add_argument("rest", nargs="*", help="more for locust, after --")
    return parser


@contextmanager
def _system(attach: str | None) -> Iterator[Stack]:
    if attach:
        yield runtime.attach(attach)
        return
    with runtime.up_fresh("locust", ENV) as stack:  # empty at first: the show begins with free seats
        yield stack


@contextmanager
def _page(stack: Stack) -> Iterator[Server]:
    watch = Watch(stack)
    server = Server(watch, ports.claim([PAGE_PORT])[0])
    watch.start()
    server.start()
    try:
        yield server
    finally:
        server.stop()
        watch.stop()


def _played(stack: Stack, page: Server, rest: list[str], leave: threading.Event) -> int:
    (port,) = ports.claim([LOCUST_PORT])
    options = ["-f", LOCUSTFILE, "--web-host", ports.HOST, "--web-port", str(port), *rest]
    environment = {**os.environ, "TR_RUN_DIR": str(stack.run_dir.path)}
    # In a session of its own: Ctrl-C is for us, and locust is told to end when we are.
    locust = subprocess.Popen(
        [sys.executable, "-m", "locust", *options], cwd=compose.ROOT, env=environment, start_new_session=True
    )

    def ended() -> None:
        locust.wait()
        leave.set()

    threading.Thread(target=ended, daemon=True).start()
    print(f"\nthe hall, live   {page.url}\nlocust's web UI  http://{ports.HOST}:{port}  (start there)\n", flush=True)
    leave.wait()
    locust.terminate()
    try:
        return locust.wait(LEAVE_SECONDS)
    except subprocess.TimeoutExpired:
        locust.kill()
        return locust.wait()


if __name__ == "__main__":
    sys.exit(main())
