"""Calls that every operation gets: without a token, with a wrong role, malformed, too large, for an unknown id."""

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
from tests.contract.credentials import CUSTOMER, STAFF, Credentials, Headers, list_schemes

TOO_LARGE = b'"' + b"x" * (70 * 1024) + b'"'  # services accept 64 KiB
SECONDS = 15.0
IDS = ("order_id", "transfer_id", "seat_id", "user_id", "to_user_id", "seller_user_id")


@dataclass(frozen=True)
class Operation:
    """An operation of a spec, with the parameters and body of its examples."""

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
        """The documented statuses."""
        return set(map(int, self.definition["responses"]))

    @property
    def schemes(self) -> list[str]:
        """The security schemes."""
        return list_schemes(self.document, self.definition)

    @property
    def content(self) -> tuple[str, Any] | None:
        """The media type and the example of the request body, if there is a body."""
        for kind, media in self.definition.get("requestBody", {}).get("content", {}).items():
            examples = [entry["value"] for entry in media.get("examples", {}).values()]
            return kind, copy.deepcopy(media.get("example", examples[0] if examples else {}))
        return None

    def parameters(self, where: str) -> dict[str, Any]:
        """Return the examples of the parameters in one place: path, query or header."""
        found = (resolve(self.document, parameter) for parameter in self.definition.get("parameters", []))
        return {p["name"]: p["example"] for p in found if p["in"] == where and "example" in p}

    def target(self, **ids: str) -> str:
        """Build path and query from the examples. `ids` replaces path parameters."""
        path = re.sub(r"\{(\w+)\}", lambda name: str({**self.parameters("path"), **ids}[name[1]]), self.path)
        query = self.parameters("query")
        return f"{path}?{urlencode(query, doseq=True)}" if query else path


def list_operations(document: Document) -> list[Operation]:
    """List the operations of a spec."""
    return [Operation(document, method, path, definition) for method, path, definition in operations(document)]


class Prober:
    """A client that calls the operations of one server."""

    def __init__(self, url: str, credentials: Credentials, pool: urllib3.PoolManager) -> None:
        self._url = url
        self._credentials = credentials
        self._pool = pool

    def call(
        self,
        operation: Operation,
        user_id: UUID | None,
        target: str = "",
        body: Any = ...,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Call an operation and return the status. Target and body default to the examples."""
        kind, example = operation.content or ("", None)
        content = body if isinstance(body, bytes) else _encode(kind, example if body is ... else body)
        sent: Headers = {"Content-Type": kind} if kind else {}
        sent |= self._credentials.headers(operation.document, operation.definition, user_id)
        url = self._url + (target or operation.target())
        answer = self._pool.request(
            operation.method, url, body=content, headers={**sent, **(headers or {})}, timeout=SECONDS
        )
        return answer.status

    def probe(self, operation: Operation) -> None:
        """Cause each status that the operation documents and that a single call can cause."""
        self._call_as_others(operation)
        user_id = self._choose_user(operation)
        if operation.content and 413 in operation.statuses:
            self.call(operation, user_id, body=TOO_LARGE)
        if operation.content and 415 in operation.statuses:
            self.call(operation, user_id, body=b"text", headers={"Content-Type": "text/plain"})
        for target, body in _list_malformed(operation):
            self.call(operation, user_id, target, body)
        if 404 in operation.statuses:
            self._call_with_unknown_ids(operation, user_id)
        if operation.method == "GET":
            self.call(operation, user_id)

    def _call_as_others(self, operation: Operation) -> None:
        if not operation.schemes:
            return
        self.call(operation, None)
        if operation.schemes == ["service"]:
            self.call(operation, None, headers=self._credentials.service("order-service", operation.document))
        elif operation.schemes == ["user"]:
            self.call(operation, CUSTOMER if self._choose_user(operation) == STAFF else STAFF)

    def _choose_user(self, operation: Operation) -> UUID:
        return STAFF if "Staff" in operation.definition["tags"] else CUSTOMER

    def _call_with_unknown_ids(self, operation: Operation, user_id: UUID) -> None:
        ids = {name: str(uuid4()) for name in operation.parameters("path")}
        body: Any = ...
        if operation.content:
            body = {**operation.content[1], **{name: str(uuid4()) for name in IDS if name in operation.content[1]}}
            body |= {"seller_user_id": str(CUSTOMER)} if "seller_user_id" in body else {}
            body |= {"key": str(uuid4())} if "key" in body else {}
        self.call(operation, user_id, operation.target(**ids), body)


def _list_malformed(operation: Operation) -> Iterator[tuple[str, Any]]:
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


def _encode(kind: str, body: Any) -> bytes | None:
    if not kind:
        return None
    return (urlencode(body) if kind == "application/x-www-form-urlencoded" else json.dumps(body)).encode()
