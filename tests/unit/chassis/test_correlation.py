"""Every answer of a service has one correlation id, a UUID: in its header, its body and all its log lines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from flask import Response
from flask.testing import FlaskClient

from services.chassis import access, logs, web
from services.chassis.errors import Refused, Unknown
from services.contracts.errors import ErrorCode
from tests.support.service_settings import credential_headers, process_settings

pytestmark = pytest.mark.unit

SETTINGS = process_settings("order-service")
MINE = "11111111-2222-4333-8444-5555555555ab"
SENT = [None, "", "x" * 250, MINE, MINE.upper(), MINE.replace("-", ""), f"{{{MINE}}}", f"{MINE}, {MINE}", "1" * 33]


class Body(msgspec.Struct):
    seat_id: UUID


@pytest.fixture
def client() -> FlaskClient:
    app = web.create_app(SETTINGS, checks={"database": lambda: False})

    def read_body() -> Response:
        return web.ok({"seat_id": web.body(Body).seat_id})

    def fail(error: Exception) -> Any:
        def view() -> Response:
            raise error

        return view

    app.add_url_rule("/body", "body", access.public(read_body), methods=["POST"])
    app.add_url_rule("/mine", "mine", access.customer(lambda: web.ok({})))
    app.add_url_rule("/inside", "inside", access.internal("order-service")(lambda: web.ok({})))
    app.add_url_rule("/bug", "bug", access.public(fail(RuntimeError("a bug"))))
    app.add_url_rule("/unknown", "unknown", access.public(fail(Unknown("no answer"))))
    app.add_url_rule("/busy", "busy", access.public(fail(Refused(ErrorCode.RATE_LIMITED))))
    return web.finish(app).test_client()


@contextmanager
def record_lines() -> Iterator[list[dict[str, Any]]]:
    """Yield a list that gets the log lines of the block at its end, as the process writes them."""
    stream = io.BytesIO()
    lines: list[dict[str, Any]] = []
    handler = logs._LineHandler(stream)
    handler.setFormatter(logs.JsonFormatter("test-service"))
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel("INFO")
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        lines += [json.loads(line) for line in stream.getvalue().splitlines()]


JSON = {"content_type": "application/json"}
CALLS: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "ok": ("POST", "/body", {"json": {"seat_id": str(uuid4())}}, 200),
    "not JSON": ("POST", "/body", {"data": b"{", **JSON}, 400),
    "no UUID": ("POST", "/body", {"json": {"seat_id": "1"}}, 400),
    "another content type": ("POST", "/body", {"data": b"x"}, 415),
    "too large": ("POST", "/body", {"data": b"x" * 70_000, **JSON}, 413),
    "wrong method": ("DELETE", "/body", {}, 405),
    "no route": ("GET", "/nowhere", {}, 404),
    "no token": ("GET", "/mine", {}, 401),
    "no credential": ("GET", "/inside", {}, 401),
    "bug": ("GET", "/bug", {}, 500),
    "unknown": ("GET", "/unknown", {}, 503),
    "busy": ("GET", "/busy", {}, 429),
    "health": ("GET", "/health", {}, 503),
    "preflight": ("OPTIONS", "/body", {}, 200),
    "head": ("HEAD", "/nowhere", {}, 404),
}


@pytest.mark.parametrize("sent", SENT)
@pytest.mark.parametrize("call", CALLS)
def test_answer_has_one_id(client: FlaskClient, call: str, sent: str | None) -> None:
    method, path, more, status = CALLS[call]
    headers = {} if sent is None else {"X-Correlation-ID": sent}
    with record_lines() as logged:
        answer = client.open(path, method=method, headers=headers, **more)
    assert answer.status_code == status
    [shown] = answer.headers.getlist("X-Correlation-ID")
    assert shown == str(UUID(shown))
    assert (shown == _normalize(sent)) == (_normalize(sent) is not None)
    body = answer.get_json(silent=True) or {}
    assert body.get("correlation_id", shown) == shown
    assert ("correlation_id" in body) == (status >= 400 and call not in ("health", "head"))
    assert {line["correlation_id"] for line in logged} <= {shown}
    assert logged or path == "/health"


@pytest.mark.claim("log/stack-traces", "log/error-level", "log/unhandled-error")
def test_unhandled_error_is_logged_with_trace_and_id(client: FlaskClient) -> None:
    with record_lines() as logged:
        answer = client.get("/bug", headers={"X-Correlation-ID": MINE})
    assert answer.status_code == 500
    [line] = [line for line in logged if line["level"] == "ERROR"]
    assert line["correlation_id"] == MINE
    assert "RuntimeError: a bug" in line["exception"]
    assert "Traceback" in line["exception"]
    assert "a bug" not in answer.text


def _normalize(sent: str | None) -> str | None:
    try:
        return str(UUID(sent or ""))
    except ValueError:
        return None


def test_credential_of_a_caller_does_not_change_the_id(client: FlaskClient) -> None:
    mine = str(uuid4())
    headers = {**credential_headers("order-service", "order-service"), "X-Correlation-ID": mine}
    assert client.get("/inside", headers=headers).headers["X-Correlation-ID"] == mine
