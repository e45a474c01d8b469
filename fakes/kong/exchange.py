"""The request that the plugins read and change."""

from __future__ import annotations

import socket
from typing import Any
from uuid import uuid4

Headers = list[tuple[str, str]]


class Exchange:
    """A request, with the results of the plugins so far."""

    __slots__ = (
        "added",
        "client",
        "connection",
        "consumer",
        "correlation_id",
        "environ",
        "limits",
        "log_reason",
        "method",
        "path",
        "preflight",
        "refused_status",
        "request_id",
    )

    def __init__(self, environ: dict[str, Any], method: str, path: str) -> None:
        self.environ = environ
        self.method = method
        self.path = path
        self.client: str = environ.get("REMOTE_ADDR", "")
        self.connection: socket.socket | None = environ.get("gunicorn.socket")  # None in a test without a server
        self.request_id = uuid4().hex
        self.correlation_id = ""  # set by the plugin
        self.consumer: str | None = None
        self.added: dict[str, str] = {}  # request headers for the upstream
        self.limits: Headers = []
        self.preflight = False
        self.refused_status = 0  # of a response of Kong itself, 0 for the upstream's
        self.log_reason = ""  # for the log only: why a token was refused

    def header(self, name: str) -> str:
        """Return a request header's value, or "" without the header."""
        value: str = self.environ.get(_key(name), "")
        return value

    def replace_header(self, name: str, value: str | None) -> None:
        """Set a request header, or remove it with None."""
        if value is None:
            self.environ.pop(_key(name), None)
        else:
            self.environ[_key(name)] = value


def _key(name: str) -> str:
    return "HTTP_" + name.upper().replace("-", "_")


def put(headers: Headers, name: str, value: str) -> None:
    """Set a response header and remove others of its name."""
    drop(headers, name)
    headers.append((name, value))


def drop(headers: Headers, name: str) -> None:
    """Remove a response header."""
    lowered = name.lower()
    headers[:] = [header for header in headers if header[0].lower() != lowered]


def get(headers: Headers, name: str) -> str:
    """Return a response header's value, or "" without the header."""
    lowered = name.lower()
    return next((value for header, value in headers if header.lower() == lowered), "")


def has(headers: Headers, name: str) -> bool:
    """Whether the response has that header."""
    lowered = name.lower()
    return any(header[0].lower() == lowered for header in headers)
