"""`python reload.py COMMAND …`: runs COMMAND, and runs it anew whenever a Python file here or below changes.

For compose.dev.yaml, which mounts the source into the container. Standard library only: it runs in the services' image.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

LOOK_SECONDS = 0.5
STOP_SECONDS = 12  # more than a service takes for the requests in hand


def main(command: Sequence[str]) -> int:
    """Until SIGTERM or SIGINT. A command that ends by itself, by an error in it perhaps, waits for the next change."""
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    while not over.is_set():
        seen = _sources()
        running = subprocess.Popen(command)
        while _sources() == seen and not over.wait(LOOK_SECONDS):
            running.poll()
        _end(running)
        if not over.is_set():
            print(f"reload: a file changed, restarting {' '.join(command)}", file=sys.stderr, flush=True)
    return 0


def _sources() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path.cwd().rglob("*.py")}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
