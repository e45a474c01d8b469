"""`python -m harness.dashboard`: run a system, its live dashboard, and locust with its web UI, until Ctrl-C.

The exit status is that of locust: 0 only if every invariant holds at the end.
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
from harness.command_line import run_main
from harness.dashboard.server import Server
from harness.dashboard.watch import Watch
from harness.errors import StackError
from harness.runtime import compose, ports
from harness.runtime.signals import interrupt_once, set_signal_handler
from harness.runtime.stack import Stack

PAGE_PORT, LOCUST_PORT = 8090, 8089  # or the next free ports
LOCUSTFILE = "tests/concurrency/locustfile.py"
ENV = {  # no rate limits, and abandoned holds expire quickly enough to watch
    "RATE_LIMIT_PER_MINUTE": "1000000",
    "RATE_LIMIT_PUBLIC_PER_MINUTE": "1000000",
    "HOLD_TTL_SECONDS": "15",
}
VERDICTS = {0: "every invariant holds", 1: "invariants are broken: see the lines BROKEN above"}  # by locust's status
STOP_SECONDS = 60.0  # for locust to stop its users and to check the invariants


def main() -> int:
    """Start everything, wait for Ctrl-C or the end of locust, stop everything and return the exit status."""
    options = _build_parser().parse_args()
    interrupt_once()
    stop = threading.Event()
    try:
        with _run_system(options.attach) as stack, _serve_page(stack) as page:
            set_signal_handler(lambda _number, _frame: stop.set())  # also during the shutdown, which has a deadline
            status = _run_locust(stack, page, options.rest, stop)
    except StackError as error:
        print(f"the system did not start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(VERDICTS.get(status, f"locust ended with status {status}"))
    return status


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harness.dashboard", description=__doc__)
    parser.add_argument("--attach", metavar="RUN_DIR", help="watch a running system and leave it running")
    parser.add_argument("rest", nargs="*", help="options for locust, after --")
    return parser


@contextmanager
def _run_system(attach: str | None) -> Iterator[Stack]:
    if attach:
        yield runtime.attach(attach)
        return
    with runtime.up_fresh("locust", ENV) as stack:  # empty databases, so that all seats are available
        yield stack


@contextmanager
def _serve_page(stack: Stack) -> Iterator[Server]:
    watch = Watch(stack)
    server = Server(watch, ports.claim([PAGE_PORT])[0])
    watch.start()
    server.start()
    try:
        yield server
    finally:
        server.stop()
        watch.stop()


def _run_locust(stack: Stack, page: Server, rest: list[str], stop: threading.Event) -> int:
    (port,) = ports.claim([LOCUST_PORT])
    options = ["-f", LOCUSTFILE, "--web-host", ports.HOST, "--web-port", str(port), *rest]
    environment = {**os.environ, "TR_RUN_DIR": str(stack.run_dir.path)}
    # A session of its own keeps Ctrl-C from locust, which this process terminates itself.
    locust = subprocess.Popen(
        [sys.executable, "-m", "locust", *options], cwd=compose.ROOT, env=environment, start_new_session=True
    )

    def stop_after_locust() -> None:
        locust.wait()
        stop.set()

    try:
        threading.Thread(target=stop_after_locust, daemon=True).start()
        print(
            f"\ndashboard      {page.url}\nlocust web UI  http://{ports.HOST}:{port}  (start the sale here)\n",
            flush=True,
        )
        stop.wait()
    finally:  # also if the reader of the output has gone
        locust.terminate()
        status = _wait_for_end(locust)
    return status


def _wait_for_end(locust: subprocess.Popen[bytes]) -> int:
    try:
        return locust.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        locust.kill()
        return locust.wait()


if __name__ == "__main__":
    run_main(main)
