"""Run a fake as its users do, as a process of its own on a free port, and script it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 20.0


class FakeServer:
    """Its address, and verbs for the control plane that all fakes share."""

    def __init__(self, url: str) -> None:
        self.url = url

    def control(self, verb: str, **body: Any) -> Any:
        """POST to `/_control/verb`; whatever is not a 2xx fails the test."""
        return self._answer("POST", verb, body)

    def read(self, verb: str) -> Any:
        return self._answer("GET", verb)

    def clear(self, verb: str) -> None:
        self._answer("DELETE", verb)

    def refused(self, verb: str, **body: Any) -> str:
        """POST what the control plane must refuse; returns its reason."""
        answer = requests.post(f"{self.url}/_control/{verb}", json=body or None, timeout=5)
        assert answer.status_code == 400, answer.text
        reason: str = answer.json()["error"]
        return reason

    def _answer(self, method: str, verb: str, body: dict[str, Any] | None = None) -> Any:
        answer = requests.request(method, f"{self.url}/_control/{verb}", json=body or None, timeout=5)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def fault(self, kind: str, path: str = "*", **rest: Any) -> None:
        self.control("faults", kind=kind, path=path, **rest)

    def journal(self) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = self.read("journal")["calls"]
        return calls


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(module: str, **env: str) -> Iterator[FakeServer]:
    """`python -m module` until the block ends; its log goes nowhere."""
    port = free_port()
    environment = {**os.environ, "PORT": str(port), "BIND": "127.0.0.1", **env}
    process = subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        server = FakeServer(f"http://127.0.0.1:{port}")
        _await_health(server.url, process)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=10)


def _await_health(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{url}/health", timeout=1).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.02)  # between two looks at the port
    raise AssertionError(f"{url} did not come up")
