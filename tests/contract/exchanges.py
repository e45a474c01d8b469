"""Requests and answers on the wire, and whether a spec allows them."""

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

AnswerId = tuple[str, str, int]  # method, path as the spec spells it, status
BODILESS = (204, 304)
JSON = "application/json"


@dataclass(frozen=True)
class Exchange:
    """One request and its answer. `server` names the spec of the program that answered."""

    server: str
    method: str
    path: str
    status: int
    headers: Mapping[str, str] = field(hash=False)
    body: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"{self.server}: {self.method} {self.path} → {self.status} {self.body[:160]!r}"


class Contract:
    """A spec that exchanges are validated against."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._routes = [
            (method, _compile_path(path), path, operation) for method, path, operation in operations(document)
        ]
        self._validators: dict[AnswerId, jsonschema_rs.Draft202012Validator] = {}

    @property
    def documented(self) -> set[AnswerId]:
        """Every answer that the spec documents."""
        return {
            (m, p, int(status)) for m, p, operation in operations(self.document) for status in operation["responses"]
        }

    def identify(self, exchange: Exchange) -> AnswerId | None:
        """Return the answer that an exchange reached, or None if the spec does not have its path and method."""
        found = self._find_operation(exchange)
        return (exchange.method, found[0], exchange.status) if found else None

    def violations(self, exchange: Exchange, *, body_only: bool = False) -> Iterator[str]:
        """Yield what the spec does not allow about an answer. `body_only` skips the headers, if they are not known."""
        found = self._find_operation(exchange)
        if found is None:
            if exchange.status not in (404, 405):
                yield f"{exchange}: no such operation"
            return
        path, operation = found
        response = resolve(self.document, operation["responses"].get(str(exchange.status)))
        if response is None:
            yield f"{exchange}: undocumented status"
            return
        check = self._check_body if body_only else self._check_all
        yield from (f"{exchange}: {problem}" for problem in check(exchange, path, response))

    def _find_operation(self, exchange: Exchange) -> tuple[str, Document] | None:
        for method, pattern, path, operation in self._routes:
            if method == exchange.method and pattern.fullmatch(exchange.path):
                return path, operation
        return None

    def _check_all(self, exchange: Exchange, path: str, response: Document) -> Iterator[str]:
        sent = {name.lower() for name in exchange.headers}
        for name, header in response.get("headers", {}).items():
            if resolve(self.document, header).get("required") and name.lower() not in sent:
                yield f"header {name} is missing"
        content = response.get("content", {})
        kind = exchange.headers.get("Content-Type", "").partition(";")[0]
        if content and exchange.status not in BODILESS and kind not in content:
            yield f"undocumented media type {kind!r}"
        elif kind == JSON:
            yield from self._check_body(exchange, path, response)

    def _check_body(self, exchange: Exchange, path: str, response: Document) -> Iterator[str]:
        if exchange.status not in BODILESS and JSON in response.get("content", {}):
            yield from self._validate(exchange, path, response["content"][JSON]["schema"])

    def _validate(self, exchange: Exchange, path: str, schema: Document) -> Iterator[str]:
        key = (exchange.method, path, exchange.status)
        if key not in self._validators:
            whole = {**schema, "components": self.document.get("components", {})}
            self._validators[key] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        try:
            body = json.loads(exchange.body)
        except ValueError:
            yield "the body is not JSON"
            return
        for error in self._validators[key].iter_errors(body):
            yield f"{'.'.join(map(str, error.instance_path))}: {error.message[:300]}"


class RecordingPool(urllib3.PoolManager):
    """A pool that records its exchanges. `servers` maps `host:port` to the name of a spec."""

    def __init__(self, servers: Mapping[str, str], **options: Any) -> None:
        super().__init__(retries=False, **options)
        self.exchanges: list[Exchange] = []
        self._servers = dict(servers)

    def move(self, server: str, url: str) -> None:
        """Record the exchanges at `url` for `server`, because it has a new address."""
        self._servers[urlsplit(url).netloc] = server

    def request(self, method: str, url: str, *args: Any, **options: Any) -> urllib3.BaseHTTPResponse:
        """Send a request, and record it if its server has a spec."""
        answer = super().request(method, url, *args, **options)
        parts = urlsplit(url)
        server = self._servers.get(parts.netloc)
        if server and not parts.path.startswith("/_control"):
            self.exchanges.append(Exchange(server, method, parts.path, answer.status, answer.headers, answer.data))
        return answer


def _compile_path(path: str) -> re.Pattern[str]:
    return re.compile(
        "".join("[^/]+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\w+\})", path))
    )
