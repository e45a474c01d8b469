"""Each plugin of the fake Kong behaves as in Kong 3.9."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import jwt
import pytest

from fakes.kong import __main__ as command
from fakes.kong.refusals import Templates, choose_format
from tests.support.service_settings import USER_KEY, signing_key
from tests.unit.fakes.kong_gateway import bearer, plugin, token

ORIGIN = "http://localhost:3000"
pytestmark = pytest.mark.unit


def remove_anonymous(config: dict[str, Any]) -> None:
    """Remove `anonymous`, so that jwt itself refuses."""
    for service in config["services"]:
        for route in service["routes"]:
            for entry in route["plugins"]:
                entry["config"].pop("anonymous", None)


def list_refused_tokens() -> list[Any]:
    none = jwt.encode({"exp": 9e9}, "", algorithm="none", headers={"kid": USER_KEY.key_id})
    nameless = jwt.encode({"exp": 9e9}, USER_KEY.private, algorithm="ES256")
    order = signing_key("order-service")
    forged = token(replace(order, key_id=USER_KEY.key_id))
    long = token(exp=int(time.time()) + 24 * 3600)  # the tests may run long after this
    return [
        pytest.param(None, {"message": "Unauthorized"}, "Bearer", id="none"),
        pytest.param("a.b.c", {"message": "Bad token; invalid JSON"}, None, id="garbage"),
        pytest.param(none, {"message": "Bad token; invalid alg"}, None, id="alg none"),
        pytest.param(nameless, {"message": "No mandatory 'kid' in claims"}, None, id="no kid"),
        pytest.param(token(order), {"message": "No credentials found for given 'kid'"}, None, id="other kid"),
        pytest.param(forged, {"message": "Invalid signature"}, None, id="forged"),
        pytest.param(token(exp=int(time.time()) - 1), {"exp": "token expired"}, None, id="expired"),
        pytest.param(token(exp=None), {"exp": "must be a number"}, None, id="no exp"),
        pytest.param(long, {"exp": "exceeds maximum allowed expiration"}, None, id="too long"),
    ]


@pytest.mark.parametrize(("text", "body", "challenge"), list_refused_tokens())
def test_jwt_without_anonymous_returns_kongs_messages(text, body, challenge, config, gateway, upstream):
    remove_anonymous(config)
    response = gateway("GET", "/api/orders", bearer(text) if text else {})
    assert (response.status_code, response.json) == (401, body)
    assert response.headers["WWW-Authenticate"] == (challenge or 'Bearer error="invalid_token"')
    assert upstream.seen == []


@pytest.mark.claim("gateway/jwt-plugin-refuses")
@pytest.mark.parametrize(("text", "body", "_challenge"), list_refused_tokens())
def test_invalid_token_is_refused_and_the_reason_logged(text, body, _challenge, gateway, upstream):
    response = gateway("GET", "/api/orders", bearer(text) if text else {})
    assert response.status_code == 401
    assert response.json == {
        "success": False,
        "error_code": "GATEWAY_REJECTED",
        "message": "Unauthorized",
        "correlation_id": response.headers["X-Correlation-ID"],
    }
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert next(iter(body.values())) in gateway.lines[0][2]
    assert upstream.seen == []


def test_verified_token_expires(gateway, monkeypatch):
    mine = bearer()
    assert gateway("GET", "/api/orders", mine).status_code == 200
    later = time.time() + 61
    monkeypatch.setattr("time.time", lambda: later)
    assert gateway("GET", "/api/orders", mine).status_code == 401


def test_token_in_the_url_is_ignored(gateway):
    assert gateway("GET", f"/api/orders?jwt={token()}").status_code == 401


@pytest.mark.claim("gateway/cors-origins", "gateway/cors-methods", "gateway/cors-headers")
def test_preflight_needs_no_token(gateway, upstream):
    request = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    response = gateway("OPTIONS", "/api/pay", request)
    assert (response.status_code, response.data) == (200, b"")
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert response.headers["Access-Control-Max-Age"] == "3600"
    allowed = set(response.headers["Access-Control-Allow-Headers"].split(","))
    assert {"Authorization", "Content-Type", "Idempotency-Key"} <= allowed
    assert response.headers["Access-Control-Allow-Methods"] == "GET,POST,PATCH,DELETE,OPTIONS"
    assert upstream.seen == []


def test_options_without_preflight_needs_a_token(gateway):
    assert gateway("OPTIONS", "/api/pay").status_code == 401


@pytest.mark.parametrize("headers", [{}, bearer()])
def test_origin_can_read_answers_and_refusals(headers, gateway):
    response = gateway("GET", "/api/orders", {"Origin": ORIGIN, **headers})
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert response.headers["Access-Control-Expose-Headers"] == "Date,ETag,Retry-After,X-Correlation-ID"
    assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [("https://b.example", True), ("https://b.example:443", True), ("https://evil.example", False)],
)
def test_allowed_origin_is_named_among_several(origin, allowed, config, gateway):
    plugin(config, "cors")["origins"] = ["https://a.example", "https://b.example"]
    response = gateway("GET", "/api/orders", {"Origin": origin, **bearer()})
    assert response.headers.get("Access-Control-Allow-Origin") == ("https://b.example" if allowed else None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    now = [6_000_000_010]  # ten seconds into a minute
    monkeypatch.setattr("time.time", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


@pytest.mark.claim("layers/gateway-guards-routes")
def test_each_user_has_one_limit_across_routes(clock, config, gateway, upstream):
    plugin(config, "rate-limiting")["minute"] = 2
    mine, theirs = bearer(token(sub="me")), bearer(token(sub="them"))
    first = gateway("GET", "/api/orders", mine)
    assert first.headers["X-RateLimit-Limit-Minute"] == first.headers["RateLimit-Limit"] == "2"
    assert first.headers["X-RateLimit-Remaining-Minute"] == first.headers["RateLimit-Remaining"] == "1"
    assert first.headers["RateLimit-Reset"] == "50"
    gateway("GET", "/api/events", mine)
    refused = gateway("GET", "/api/orders", mine)
    assert refused.status_code == 429
    assert refused.json["error_code"] == "GATEWAY_REJECTED"
    assert refused.json["message"] == "API rate limit exceeded"
    assert refused.headers["Retry-After"] == "50"
    assert refused.headers["RateLimit-Remaining"] == "0"
    assert gateway("GET", "/api/orders", theirs).status_code == 200
    assert len(upstream.seen) == 3
    clock(50)
    assert gateway("GET", "/api/orders", mine).status_code == 200


SPELLINGS = ["Bearer {}", "bearer {}", "Bearer   {}", "  Bearer {}", "Basic Bearer {}"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_and_tokens_of_a_user_share_the_limit(spelling, clock, config, gateway):
    plugin(config, "rate-limiting")["minute"] = 1
    first, refreshed = token(sub="me", jti="1"), token(sub="me", jti="2")
    assert gateway("GET", "/api/orders", {"Authorization": f"Bearer {first}"}).status_code == 200
    for mine in (first, refreshed):
        assert gateway("GET", "/api/orders", {"Authorization": spelling.format(mine)}).status_code == 429


def test_a_client_cannot_choose_the_counted_user(clock, config, gateway, upstream):
    plugin(config, "rate-limiting")["minute"] = 1
    for name in ("somebody", "another"):
        sent = gateway("GET", "/api/orders", {**bearer(token(sub="me")), "X-Token-Subject": name})
    assert sent.status_code == 429
    assert upstream.seen[0][2]["X-Token-Subject"] == "me"
    gateway("POST", "/api/auth/login", {"X-Token-Subject": "somebody"})
    assert upstream.seen[-1][2]["X-Token-Subject"] is None


def test_public_routes_count_by_address(clock, config, gateway):
    plugin(config["services"][0]["routes"][0], "rate-limiting")["minute"] = 1
    assert gateway("POST", "/api/auth/login", {"Authorization": "a"}).status_code == 200
    assert gateway("POST", "/api/auth/login", {"Authorization": "b"}).status_code == 429
    assert gateway("POST", "/api/auth/login", client="10.0.0.2").status_code == 200


def test_headers_show_the_tightest_period(clock, config, gateway):
    plugin(config, "rate-limiting").update(second=1, minute=5)
    mine = bearer(token())
    assert gateway("GET", "/api/orders", mine).headers["RateLimit-Limit"] == "1"
    refused = gateway("GET", "/api/orders", mine)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    clock(1)
    assert gateway("GET", "/api/orders", mine).headers["X-RateLimit-Remaining-Minute"] == "3"


def test_refused_token_uses_no_limit(clock, config, gateway):
    plugin(config, "rate-limiting")["minute"] = 1
    for _ in range(3):
        assert gateway("GET", "/api/orders", bearer("x.y.z")).status_code == 401


def test_body_over_a_megabyte_is_413(gateway, upstream):
    assert gateway("POST", "/api/pay", bearer(), data=b"x" * 2**20).status_code == 200
    response = gateway("POST", "/api/pay", bearer(), data=b"x" * (2**20 + 1))
    assert response.status_code == 413
    assert response.json["message"] == "Request size limit exceeded"
    assert len(upstream.seen) == 1


def test_correlation_id_is_forwarded_and_echoed(gateway, upstream):
    mine = "11111111-2222-4333-8444-555555555555"
    response = gateway("GET", "/api/orders", {**bearer(), "X-Correlation-ID": mine})
    assert (
        response.headers["X-Correlation-ID"] == upstream.seen[0][2]["X-Correlation-ID"] == gateway.lines[0][1] == mine
    )


@pytest.mark.claim("correlation/id-per-request")
@pytest.mark.parametrize("headers", [{}, bearer()])
def test_missing_correlation_id_is_generated(headers, gateway):
    assert UUID(gateway("GET", "/api/orders", headers).headers["X-Correlation-ID"]).version == 4


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("image/png", "json"),
        ("text/html,application/xml;q=0.9,*/*;q=0.8", "html"),
        ("text/html;q=0.1, application/json", "json"),
        ("text/plain", "plain"),
    ],
)
def test_accept_header_chooses_the_template(accept, chosen):
    assert choose_format(accept) == chosen


@pytest.mark.parametrize("text", ['{"m": "%s %s %s"}', '{"m": "%d"}', "100%"])
def test_template_that_kong_cannot_fill_is_refused(text, tmp_path):
    file = tmp_path / "template.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="at most two"):
        Templates.read(file)


def test_log_line_has_no_token_and_no_query(gateway):
    secret = token()
    gateway("GET", f"/api/orders?jwt={secret}", bearer(secret))
    gateway("GET", f"/api/orders?jwt={secret}", bearer(secret + "x"))
    assert len(gateway.lines) == 2
    assert not any(secret[:20] in part for line in gateway.lines for part in line)


def test_log_line_is_json_with_the_common_fields(capfd):
    command.log("WARNING", "some-id", 'GET /"quoted" 404')
    line = json.loads(capfd.readouterr().out)
    assert list(line) == ["timestamp", "level", "service", "correlation_id", "message"]
    assert (line["level"], line["service"]) == ("WARNING", "api-gateway")
