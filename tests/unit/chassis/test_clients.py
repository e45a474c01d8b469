"""The three outcomes of an HTTP call to another service: done, refused, unknown."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from services.chassis import clients
from services.chassis.clients import HttpPeer
from services.chassis.errors import NoAnswer, Refused, Unknown
from tests.support.service_settings import make_credential

pytestmark = pytest.mark.unit


def _peer(status: int, body: bytes) -> HttpPeer:
    def respond(_method: str, _url: str, _body: bytes | None, _headers: Mapping[str, str], _seconds: float) -> object:
        if status == 0:
            raise TimeoutError("no answer")
        return status, body

    return HttpPeer("Order", "http://order.test", make_credential("event-service", "order-service"), respond)  # type: ignore[arg-type]


def _refusal(code: str) -> bytes:
    return b'{"success": false, "error_code": "%s", "message": "no"}' % code.encode()


def test_success_returns_the_data() -> None:
    assert _peer(200, b'{"success": true, "data": {"a": 1}}').get("/orders/1") == {"a": 1}


def test_definite_refusal_keeps_its_code() -> None:
    with pytest.raises(Refused, match="ORDER_FAILED"):
        _peer(409, _refusal("ORDER_FAILED")).post("/orders", key="k")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (0, b""),
        (503, _refusal("SERVICE_UNAVAILABLE")),
        (500, _refusal("INTERNAL_ERROR")),
        (409, _refusal("A_CODE_OF_SOMEBODY_ELSE")),
        (200, b"<html>"),
        (200, b"[]"),
    ],
    ids=["silence", "503", "500", "unknown code", "no JSON", "no envelope"],
)
def test_any_other_answer_is_unknown(status: int, body: bytes) -> None:
    with pytest.raises(Unknown):
        _peer(status, body).post("/orders", key="k")


@pytest.mark.parametrize(("status", "is_away"), [(503, True), (500, False)])
def test_immediate_503_shows_that_the_service_cannot_work(
    monkeypatch: pytest.MonkeyPatch, status: int, is_away: bool
) -> None:
    """A 500 is a bug, for example with one order. It must not stop the calls for all others."""
    monkeypatch.setattr(clients, "IMMEDIATE_SECONDS", 60.0)
    with pytest.raises(Unknown) as caught:
        _peer(status, _refusal("INTERNAL_ERROR")).get("/orders/1")
    assert isinstance(caught.value, NoAnswer) == is_away


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "UNAUTHORIZED"),
        (401, "TOKEN_EXPIRED"),
        (403, "FORBIDDEN"),
        (404, "NOT_FOUND"),
        (405, "METHOD_NOT_ALLOWED"),
    ],
)
def test_a_refusal_of_the_call_itself_is_unknown(status: int, code: str) -> None:
    with pytest.raises(Unknown):
        _peer(status, _refusal(code)).post("/credits/deduct", key="k")
