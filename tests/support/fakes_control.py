"""A client for the control plane of a fake (`/_control`): faults, clock and journal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3


class Fake:
    """A running fake at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._pool = urllib3.PoolManager(retries=False)

    def control(self, verb: str, **body: Any) -> Any:
        """POST to `/_control/verb` and return the JSON of the response. A status other than 2xx fails the test."""
        return self._call("POST", verb, body)

    def read(self, verb: str) -> Any:
        """GET `/_control/verb`."""
        return self._call("GET", verb)

    def clear(self, verb: str) -> None:
        """DELETE `/_control/verb`."""
        self._call("DELETE", verb)

    def get_refusal(self, verb: str, **body: Any) -> str:
        """POST a request that must get a 400, and return its reason."""
        reason: str = self._call("POST", verb, body, expected=400)["error"]
        return reason

    def add_fault(self, kind: str, path: str = "*", **options: Any) -> None:
        """Inject a fault into the next call to `path`. `count=0` injects it into all following calls."""
        self.control("faults", kind=kind, path=path, **options)

    @contextmanager
    def fault(self, kind: str, path: str = "*", **options: Any) -> Iterator[None]:
        """Inject a fault into every call to `path` inside the block, or into the first `count` calls."""
        self.add_fault(kind, path, **{"count": 0, **options})
        try:
            yield
        finally:
            self.clear("faults")

    @contextmanager
    def advance_clock(self, seconds: int) -> Iterator[None]:
        """Run the block with the fake's clock `seconds` ahead."""
        self.control("clock", advance=seconds)
        try:
            yield
        finally:
            self.control("clock", advance=-seconds)

    def journal(self) -> list[dict[str, Any]]:
        """All calls that the fake has received."""
        return list(self.read("journal")["calls"])

    def calls(self, path: str, since: int = 0) -> list[dict[str, Any]]:
        """The calls to `path` in the journal, without the first `since` calls of the journal."""
        return [call for call in self.journal()[since:] if call["path"] == path]

    def _call(self, method: str, verb: str, body: dict[str, Any] | None = None, expected: int | None = None) -> Any:
        content = json.dumps(body).encode() if body else None
        headers = {"Content-Type": "application/json"} if content else {}
        response = self._pool.request(method, f"{self.url}/_control/{verb}", body=content, headers=headers, timeout=30)
        is_expected = response.status == expected if expected else response.status < 300
        assert is_expected, response.data
        return json.loads(response.data) if response.data else None
