"""`python reload.py COMMAND …`: run COMMAND and restart it when a Python file in this folder or below changes.

compose.dev.yaml uses it with mounted sources. It needs only the standard library, because the services' image runs it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

POLL_SECONDS = 0.5
STOP_SECONDS = 12  # longer than a service needs to finish its requests


def main(command: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT. After the command ends by itself, wait for the next change."""
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    while not over.is_set():
        seen = _sources()
        running = subprocess.Popen(command)
        while _sources() == seen and not over.wait(POLL_SECONDS):
            running.poll()
        _stop(running)
        if not over.is_set():
            print(f"reload: a file changed, restarting {' '.join(command)}", file=sys.stderr, flush=True)
    return 0


def _sources() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path.cwd().rglob("*.py")}


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
