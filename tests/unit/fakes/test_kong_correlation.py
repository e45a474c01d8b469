"""Every response of the fake Kong has one correlation id, a UUID: in its header, its body and its log line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from werkzeug.test import TestResponse

from tests.unit.fakes.kong_gateway import KongClient, bearer, plugin, set_targets, token

pytestmark = pytest.mark.unit

ORIGIN = "http://localhost:3000"
MINE = "11111111-2222-4333-8444-5555555555ab"
SENT = {
    "nothing": None,
    "a UUID": MINE,
    "upper case": MINE.upper(),
    "no hyphens": MINE.replace("-", ""),
    "no UUID": "x" * 250,
    "two ids": f"{MINE}, {MINE}",
    "blank": " ",
    "almost": MINE[:-1] + "g",
    "empty": "",
}


def dead_service(config: dict[str, Any]) -> None:
    set_targets(config, "127.0.0.1:9")


def unknown_service(config: dict[str, Any]) -> None:
    set_targets(config, "nowhere.invalid:1")


def slow_service(config: dict[str, Any]) -> None:
    config["services"][2].update(read_timeout=50, retries=0)


def low_limit(config: dict[str, Any]) -> None:
    plugin(config, "rate-limiting")["minute"] = 1


def keep(config: dict[str, Any]) -> None:
    """Leave the configuration as it is."""


# name: (edit of the configuration, method, path, maker of the headers, status). A token is valid for a minute only.
REFUSALS: dict[str, tuple[Callable[[dict[str, Any]], None], str, str, Callable[[], dict[str, str]], int]] = {
    "no token": (keep, "GET", "/api/orders", dict, 401),
    "expired token": (keep, "GET", "/api/orders", lambda: bearer(token(exp=1)), 401),
    "options without a token": (keep, "OPTIONS", "/api/pay", dict, 401),
    "no route": (keep, "GET", "/nowhere", dict, 404),
    "no route with a token": (keep, "POST", "/metrics", bearer, 404),
    "internal path": (keep, "DELETE", "/credits/deduct", bearer, 404),
    "dead service": (dead_service, "GET", "/api/orders", bearer, 502),
    "unknown service": (unknown_service, "GET", "/api/orders", bearer, 503),
    "slow service": (slow_service, "POST", "/api/pay", bearer, 504),
}


def check_one_id(response: TestResponse, gateway: KongClient, sent: str | None) -> str:
    [shown] = response.headers.getlist("X-Correlation-ID")
    assert str(UUID(shown)) == shown
    assert gateway.lines[-1][1] == shown
    is_uuid = sent is not None and sent.lower().replace("-", "") == MINE.replace("-", "")
    assert (shown == MINE) == is_uuid
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    return shown


@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_refusal_has_one_id(refusal: str, sent: str | None, config: Any, gateway: KongClient, upstream: Any) -> None:
    edit, method, path, make_headers, status = REFUSALS[refusal]
    edit(config)
    upstream.ready.clear()
    own = {} if sent is None else {"X-Correlation-ID": sent}
    response = gateway(method, path, {**make_headers(), **own, "Origin": ORIGIN})
    upstream.ready.set()
    assert response.status_code == status
    shown = check_one_id(response, gateway, sent)
    assert response.get_json()["correlation_id"] == shown
    assert "X-Correlation-ID" in response.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
def test_response_of_a_service_has_the_id_that_the_service_got(
    sent: str | None, gateway: KongClient, upstream: Any
) -> None:
    own = {} if sent is None else {"X-Correlation-ID": sent}
    response = gateway("GET", "/api/orders", {**bearer(), **own, "Origin": ORIGIN})
    assert check_one_id(response, gateway, sent) == upstream.seen[0][2]["X-Correlation-ID"]


def test_other_refusals_have_one_id(config: Any, gateway: KongClient) -> None:
    low_limit(config)
    headers = {**bearer(), "Origin": ORIGIN, "X-Correlation-ID": "no UUID"}
    assert gateway("GET", "/api/orders", headers).status_code == 200
    limited = gateway("GET", "/api/orders", headers)
    too_large = gateway("POST", "/api/pay", {**headers, **bearer(token(sub="other"))}, data=b"x" * (2**20 + 1))
    for response, line, status in ((limited, gateway.lines[1], 429), (too_large, gateway.lines[2], 413)):
        assert response.status_code == status
        shown = response.headers["X-Correlation-ID"]
        assert response.get_json()["correlation_id"] == line[1] == shown == str(UUID(shown))


def test_preflight_has_one_id(gateway: KongClient) -> None:
    request = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "X-Correlation-ID": "x" * 250}
    for path in ("/api/pay", "/nowhere"):
        response = gateway("OPTIONS", path, request)
        assert response.status_code == 200
        check_one_id(response, gateway, "x")


def test_page_for_a_browser_has_the_id(gateway: KongClient) -> None:
    response = gateway("GET", "/api/orders", {"Accept": "text/html"})
    assert response.headers["X-Correlation-ID"] in response.get_data(as_text=True)


def test_service_keeps_the_ids_in_its_body(gateway: KongClient, upstream: Any) -> None:
    """Only a response of Kong itself is changed."""
    upstream.reply = (500, [("Content-Type", "application/json")], b'{"correlation_id": "of the service"}')
    response = gateway("GET", "/api/orders", bearer())
    assert response.get_json() == {"correlation_id": "of the service"}
    assert response.headers["Content-Length"] == "36"
