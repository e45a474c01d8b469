"""The control plane of a fake: its faults and clock, put back at the end of each `with`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3


class Fake:
    """A fake at an address."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._pool = urllib3.PoolManager(retries=False)

    def ask(self, verb: str, method: str = "POST", **body: Any) -> Any:
        """One verb under /_control. Raises AssertionError when it is refused."""
        content = json.dumps(body).encode() if method == "POST" else None
        headers = {"Content-Type": "application/json"} if content else {}
        answer = self._pool.request(method, f"{self.url}/_control/{verb}", body=content, headers=headers)
        assert answer.status < 300, answer.data
        return json.loads(answer.data) if answer.data else None

    @contextmanager
    def fault(self, kind: str, path: str = "*", **how: Any) -> Iterator[None]:
        """Within, every call to `path` goes wrong in this way (`count` says how many do)."""
        self.ask("faults", kind=kind, path=path, **{"count": 0, **how})
        try:
            yield
        finally:
            self.ask("faults", "DELETE")

    @contextmanager
    def later(self, seconds: int) -> Iterator[None]:
        """Within, the fake's clock is ahead."""
        self.ask("clock", advance=seconds)
        try:
            yield
        finally:
            self.ask("clock", advance=-seconds)

    def calls(self, path: str, since: int = 0) -> list[dict[str, Any]]:
        """The journal's calls to `path`, from the `since`th of all calls on."""
        return [call for call in self.journal()[since:] if call["path"] == path]

    def journal(self) -> list[dict[str, Any]]:
        """All calls so far."""
        return list(self.ask("journal", "GET")["calls"])
