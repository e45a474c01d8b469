"""What was asked and answered on the wire, and whether a spec allows it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import urllib3

from harness.dev.spec_bundle import Document, operations, resolve

Reached = tuple[str, str, int]  # method, path as the spec spells it, status
BODILESS = (204, 304)
JSON = "application/json"


@dataclass(frozen=True)
class Exchange:
    """One call and its answer; `server` is the spec that speaks for whoever answered."""

    server: str
    method: str
    path: str
    status: int
    headers: Mapping[str, str] = field(hash=False)
    body: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"{self.server}: {self.method} {self.path} → {self.status} {self.body[:160]!r}"


class Contract:
    """A spec as the judge of exchanges."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._routes = [(method, _pattern(path), path, operation) for method, path, operation in operations(document)]
        self._validators: dict[Reached, jsonschema_rs.Draft202012Validator] = {}

    @property
    def documented(self) -> set[Reached]:
        """Every status that an operation may answer."""
        return {
            (m, p, int(status)) for m, p, operation in operations(self.document) for status in operation["responses"]
        }

    def reached(self, exchange: Exchange) -> Reached | None:
        """Which operation and status an exchange is, or None for an address or method that the spec does not have."""
        found = self._operation(exchange)
        return (exchange.method, found[0], exchange.status) if found else None

    def violations(self, exchange: Exchange, *, body_only: bool = False) -> Iterator[str]:
        """What the spec does not allow about an answer; `body_only` where its headers are not known."""
        found = self._operation(exchange)
        if found is None:
            if exchange.status not in (404, 405):
                yield f"{exchange}: no such operation"
            return
        path, operation = found
        response = resolve(self.document, operation["responses"].get(str(exchange.status)))
        if response is None:
            yield f"{exchange}: undocumented status"
            return
        judge = self._body if body_only else self._judge
        yield from (f"{exchange}: {problem}" for problem in judge(exchange, path, response))

    def _operation(self, exchange: Exchange) -> tuple[str, Document] | None:
        for method, pattern, path, operation in self._routes:
            if method == exchange.method and pattern.fullmatch(exchange.path):
                return path, operation
        return None

    def _judge(self, exchange: Exchange, path: str, response: Document) -> Iterator[str]:
        sent = {name.lower() for name in exchange.headers}
        for name, header in response.get("headers", {}).items():
            if resolve(self.document, header).get("required") and name.lower() not in sent:
                yield f"header {name} is missing"
        content = response.get("content", {})
        kind = exchange.headers.get("Content-Type", "").partition(";")[0]
        if content and exchange.status not in BODILESS and kind not in content:
            yield f"undocumented media type {kind!r}"
        elif kind == JSON:
            yield from self._body(exchange, path, response)

    def _body(self, exchange: Exchange, path: str, response: Document) -> Iterator[str]:
        if exchange.status not in BODILESS and JSON in response.get("content", {}):
            yield from self._against(exchange, path, response["content"][JSON]["schema"])

    def _against(self, exchange: Exchange, path: str, schema: Document) -> Iterator[str]:
        key = (exchange.method, path, exchange.status)
        if key not in self._validators:
            whole = {**schema, "components": self.document.get("components", {})}
            self._validators[key] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        try:
            said = json.loads(exchange.body)
        except ValueError:
            yield "no JSON"
            return
        for error in self._validators[key].iter_errors(said):
            yield f"{'.'.join(map(str, error.instance_path))}: {error.message[:300]}"


class Listening(urllib3.PoolManager):
    """A pool that keeps what it carries. `servers` says which spec speaks for which `host:port`."""

    def __init__(self, servers: Mapping[str, str], **options: Any) -> None:
        super().__init__(retries=False, **options)
        self.heard: list[Exchange] = []
        self._servers = dict(servers)

    def move(self, server: str, url: str) -> None:
        """A server is somewhere else now."""
        self._servers[urlsplit(url).netloc] = server

    def request(self, method: str, url: str, *args: Any, **options: Any) -> urllib3.BaseHTTPResponse:
        """As ever; an answer from a server that is not known is not kept."""
        answer = super().request(method, url, *args, **options)
        parts = urlsplit(url)
        server = self._servers.get(parts.netloc)
        if server and not parts.path.startswith("/_control"):
            self.heard.append(Exchange(server, method, parts.path, answer.status, answer.headers, answer.data))
        return answer


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(
        "".join("[^/]+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\w+\})", path))
    )
