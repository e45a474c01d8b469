"""What every operation is asked the same way: with nothing, as somebody else, malformed, too large, about nothing."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import urllib3

from harness.dev.spec_bundle import Document, operations, resolve
from tests.contract.callers import CUSTOMER, STAFF, Callers, Headers, schemes_of

TOO_LARGE = b'"' + b"x" * (70 * 1024) + b'"'  # services take 64 KiB
SECONDS = 15.0
IDS = ("order_id", "transfer_id", "seat_id", "user_id", "to_user_id", "seller_user_id")


@dataclass(frozen=True)
class Operation:
    """An operation with what its examples say to send."""

    document: Document
    method: str
    path: str
    definition: Document

    @property
    def id(self) -> str:
        """Its operationId."""
        return str(self.definition["operationId"])

    @property
    def statuses(self) -> set[int]:
        """What it may answer."""
        return set(map(int, self.definition["responses"]))

    @property
    def schemes(self) -> list[str]:
        """What opens it."""
        return schemes_of(self.document, self.definition)

    @property
    def content(self) -> tuple[str, Any] | None:
        """Media type and example of its body."""
        for kind, media in self.definition.get("requestBody", {}).get("content", {}).items():
            examples = [entry["value"] for entry in media.get("examples", {}).values()]
            return kind, copy.deepcopy(media.get("example", examples[0] if examples else {}))
        return None

    def parameters(self, where: str) -> dict[str, Any]:
        """Its parameters of one kind, required ones or all with an example."""
        found = (resolve(self.document, parameter) for parameter in self.definition.get("parameters", []))
        return {p["name"]: p["example"] for p in found if p["in"] == where and "example" in p}

    def target(self, **ids: str) -> str:
        """Path and query by its examples; `ids` replaces path parameters."""
        path = re.sub(r"\{(\w+)\}", lambda name: str({**self.parameters("path"), **ids}[name[1]]), self.path)
        query = self.parameters("query")
        return f"{path}?{urlencode(query, doseq=True)}" if query else path


def all_of(document: Document) -> list[Operation]:
    """A spec's operations."""
    return [Operation(document, method, path, definition) for method, path, definition in operations(document)]


class Prober:
    """Asks one server."""

    def __init__(self, url: str, callers: Callers, pool: urllib3.PoolManager) -> None:
        self._url = url
        self._callers = callers
        self._pool = pool

    def ask(
        self,
        operation: Operation,
        user_id: UUID | None,
        target: str = "",
        body: Any = ...,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """One call; by its examples where nothing else is said. The status."""
        kind, example = operation.content or ("", None)
        content = body if isinstance(body, bytes) else _encoded(kind, example if body is ... else body)
        sent: Headers = {"Content-Type": kind} if kind else {}
        sent |= self._callers.headers(operation.definition, operation.schemes, user_id)
        url = self._url + (target or operation.target())
        answer = self._pool.request(
            operation.method, url, body=content, headers={**sent, **(headers or {})}, timeout=SECONDS
        )
        return answer.status

    def probe(self, operation: Operation) -> None:
        """Every question that its documented statuses say there is an answer to."""
        self._as_others(operation)
        user_id = self._proper(operation)
        if operation.content and 413 in operation.statuses:
            self.ask(operation, user_id, body=TOO_LARGE)
        if operation.content and 415 in operation.statuses:
            self.ask(operation, user_id, body=b"text", headers={"Content-Type": "text/plain"})
        for target, body in _malformed(operation):
            self.ask(operation, user_id, target, body)
        if 404 in operation.statuses:
            self._about_nothing(operation, user_id)
        if operation.method == "GET":
            self.ask(operation, user_id)

    def _as_others(self, operation: Operation) -> None:
        if not operation.schemes:
            return
        self.ask(operation, None)
        if operation.schemes == ["service"]:
            self.ask(operation, None, headers=self._callers.service("nobody-service"))
        elif operation.schemes == ["user"]:
            self.ask(operation, CUSTOMER if self._proper(operation) == STAFF else STAFF)

    def _proper(self, operation: Operation) -> UUID:
        return STAFF if "Staff" in operation.definition["tags"] else CUSTOMER

    def _about_nothing(self, operation: Operation, user_id: UUID) -> None:
        nothing = {name: str(uuid4()) for name in operation.parameters("path")}
        body: Any = ...
        if operation.content:
            body = {**operation.content[1], **{name: str(uuid4()) for name in IDS if name in operation.content[1]}}
            body |= {"seller_user_id": str(CUSTOMER)} if "seller_user_id" in body else {}
            body |= {"key": str(uuid4())} if "key" in body else {}
        self.ask(operation, user_id, operation.target(**nothing), body)


def _malformed(operation: Operation) -> Iterator[tuple[str, Any]]:
    if 400 not in operation.statuses:
        return
    if operation.content:
        yield "", b"{"
    for name in operation.parameters("path"):
        yield operation.target(**{name: "not-a-uuid"}), ...
    for parameter in operation.definition.get("parameters", []):
        found = resolve(operation.document, parameter)
        if found["in"] == "query":
            yield f"{operation.target().partition('?')[0]}?{found['name']}=%00nonsense", ...


def _encoded(kind: str, body: Any) -> bytes | None:
    if not kind:
        return None
    return (urlencode(body) if kind == "application/x-www-form-urlencoded" else json.dumps(body)).encode()
