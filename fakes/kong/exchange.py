"""One request on its way through the gateway, as the plugins see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

Headers = list[tuple[str, str]]


class Exchange:
    """What came in, and what plugins have found out so far."""

    __slots__ = (
        "added",
        "client",
        "consumer",
        "correlation_id",
        "environ",
        "limits",
        "method",
        "note",
        "path",
        "preflight",
        "request_id",
    )

    def __init__(self, environ: Mapping[str, Any], method: str, path: str) -> None:
        self.environ = environ
        self.method = method
        self.path = path
        self.client: str = environ.get("REMOTE_ADDR", "")
        self.request_id = uuid4().hex
        self.correlation_id = ""  # the plugin sets it
        self.consumer: str | None = None
        self.added: dict[str, str] = {}  # request headers for the upstream
        self.limits: Headers = []
        self.preflight = False
        self.note = ""  # for the log: why a token was refused, which the answer does not say

    def header(self, name: str) -> str:
        """A request header's value, "" where the client sent none."""
        value: str = self.environ.get("HTTP_" + name.upper().replace("-", "_"), "")
        return value


def put(headers: Headers, name: str, value: str) -> None:
    """Set a response header, in place of any of the same name."""
    drop(headers, name)
    headers.append((name, value))


def drop(headers: Headers, name: str) -> None:
    """Remove a response header."""
    lowered = name.lower()
    headers[:] = [header for header in headers if header[0].lower() != lowered]


def has(headers: Headers, name: str) -> bool:
    """Whether the response has that header."""
    lowered = name.lower()
    return any(header[0].lower() == lowered for header in headers)
