"""Runs a fake as its users do: in its own process, on a free port."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from harness.runtime.supervisor import START_SECONDS
from tests.support.fakes_control import Fake
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """Return a port of the loopback interface that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(module: str, **env: str) -> Iterator[Fake]:
    """Run `python -m module` until the end of the block."""
    port = free_port()
    environment = {**os.environ, "PORT": str(port), "BIND": "127.0.0.1", **env}
    process = subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        server = Fake(f"http://127.0.0.1:{port}")
        wait_until(lambda: _is_up(server.url, process), START_SECONDS, f"{module} is healthy")
        yield server
    finally:
        process.terminate()
        process.wait(timeout=10)


def _is_up(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"the fake at {url} has exited with {process.returncode}"
    return is_healthy(url)


def is_healthy(url: str) -> bool:
    """Whether the fake at `url` accepts connections and returns 200 from /health."""
    try:
        return requests.get(f"{url}/health", timeout=1).ok
    except (requests.ConnectionError, requests.Timeout):  # a fake that starts on a busy machine answers late
        return False
