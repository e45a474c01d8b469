"""Malformed requests to every public path get their error code in the envelope, and never a 500."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import UUID

import pytest

from harness.api_client import ApiResponse
from services.contracts.enums import Role
from tests.support import endpoints
from tests.support.endpoints import AN_ID, Route
from tests.support.people import Person, credential, token
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

BODIES: dict[str, dict[str, Any]] = {
    "/api/auth/register": {"email": "new@example.com", "phone": "+6581234567", "password": "long enough"},
    "/api/auth/login": {"email": "unknown@example.com", "password": "long enough"},
    "/api/auth/password": {"current_password": "long enough", "new_password": "long enough too"},
    "/api/auth/password/reset": {"email": "unknown@example.com"},
    "/api/auth/password/reset/confirm": {
        "email": "unknown@example.com",
        "otp_code": "123456",
        "new_password": "long enough",
    },
    "/api/reserve": {"seat_id": AN_ID},
    "/api/pay": {"order_id": AN_ID},
    "/api/verify-otp": {"otp_code": "123456", "order_id": AN_ID},
    "/api/otp/resend": {"order_id": AN_ID},
    "/api/transfer/initiate": {"seat_id": AN_ID, "seller_user_id": AN_ID, "buyer_user_id": AN_ID, "credits_amount": 10},
    "/api/transfer/confirm": {"transfer_id": AN_ID, "seller_otp": "123456"},
    "/api/transfer/dispute": {"transfer_id": AN_ID, "reason": "because"},
    "/api/transfer/cancel": {"transfer_id": AN_ID},
    "/api/transfer/reverse": {"transfer_id": AN_ID},
    "/api/transfer/dismiss": {"transfer_id": AN_ID},
    "/api/verify": {"qr_payload": "AAAA", "hall_id": "HALL-A"},
    "/api/credits/topup": {"amount": 10},
}
WITHOUT_BODY = {
    *(f"/api/auth/{name}" for name in ("refresh", "logout", "logout-everywhere")),
    *(f"/api/auth/users/<user_id>/{name}" for name in ("lock", "unlock", "logout")),
    "/api/orders/<order_id>/refund",
}
SIGNED = "/api/webhooks/stripe"  # its signature is checked before anything else
AMOUNTS = {"/api/transfer/initiate": "credits_amount", "/api/credits/topup": "amount"}
PUBLIC = endpoints.public()
WITH_BODY = [route for route in PUBLIC if route.rule in BODIES]
BROKEN_JSON = [
    b"", b"{", b"nonsense", b"[]", b"null", b"17", b'"text"', b"{} {}", b"\xff\xfe", b'{"a": "\xff"}', b"{'a': 1}",
    b"[" * 30_000, b'{"a":' * 5_000, b"NaN", b"\xef\xbb\xbf{}",
]  # fmt: skip
WRONG_VALUES: list[Any] = [None, 17, -1.5, True, "", "of the wrong kind", [], {}, ["x"], "\x00", "\ud800", "x" * 5000]
ABSENT = [("order_id", None), ("seller_otp", None)]
WRONG_AMOUNTS = [b"0", b"-1", b"0.001", b"1e30", b"1e999999999", b"100000000", b'"10"', b"true", b"null", b"[]", b"NaN"]


def make_caller(system: TestSystem, route: Route) -> Person:
    """Return a user that the policy of the route allows."""
    if not route.for_users and route.rule != "/api/auth/refresh":  # the gateway requires a token for a refresh
        return system.visitor()
    return system.staff() if route.policy.roles == {Role.STAFF} else system.person()


def assert_refused(answer: ApiResponse, status: int, *codes: str) -> None:
    """Check the status, the error code, and that the envelope is complete."""
    assert answer.status == status, answer
    envelope = answer.envelope
    assert envelope["success"] is False
    assert envelope["error_code"] in codes, envelope
    assert envelope["message"]
    assert str(UUID(envelope["correlation_id"])) == envelope["correlation_id"]
    assert envelope["correlation_id"] == answer.headers["X-Correlation-ID"]


def test_every_public_path_has_a_body_here() -> None:
    posts = {route.rule for route in PUBLIC if route.method == "POST"}
    assert posts == BODIES.keys() | WITHOUT_BODY | {SIGNED}


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
def test_a_body_that_is_not_a_json_object_is_a_validation_error(system: TestSystem, route: Route) -> None:
    person = make_caller(system, route)
    for body in BROKEN_JSON:
        assert_refused(person.call("POST", route.path, body), 400, "VALIDATION_ERROR")


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
def test_a_field_of_the_wrong_kind_is_named_by_its_error(system: TestSystem, route: Route) -> None:
    person, body = make_caller(system, route), BODIES[route.rule]
    for name in body:
        for wrong in WRONG_VALUES:
            answer = person.post(route.path, {**body, name: wrong})
            assert answer.status < 500, (name, wrong, answer)
            if (name, wrong) in ABSENT or (name in AMOUNTS.values() and wrong == 17):
                continue
            if name.endswith("_id") and name != "hall_id" and isinstance(wrong, str) and wrong.isprintable():
                assert_refused(answer, 400, "INVALID_UUID")
            elif answer.status == 400:
                assert_refused(answer, 400, "VALIDATION_ERROR", "INVALID_UUID", "QR_INVALID")
            else:  # any text is a valid reason or password
                assert isinstance(wrong, str), (name, wrong, answer)
                assert name in ("reason", "hall_id", "email") or name.endswith("password"), (name, wrong, answer)


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
def test_another_content_type_is_415(system: TestSystem, route: Route) -> None:
    person, body = make_caller(system, route), json.dumps(BODIES[route.rule]).encode()
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
    ):
        answer = person.call("POST", route.path, body, {"Content-Type": kind})
        assert_refused(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("route", WITH_BODY, ids=str)
def test_a_body_that_is_too_large_is_413(system: TestSystem, route: Route) -> None:
    person = make_caller(system, route)
    body = {**BODIES[route.rule], "padding": "x" * 70_000}
    assert_refused(person.post(route.path, body), 413, "PAYLOAD_TOO_LARGE")
    assert_refused(person.post(route.path, {"padding": "x" * 1_100_000}), 413, "GATEWAY_REJECTED")


@pytest.mark.parametrize("rule", AMOUNTS)
def test_an_impossible_amount_is_a_validation_error(system: TestSystem, rule: str) -> None:
    person, other = system.person(), system.person()
    body = {**BODIES[rule], "seller_user_id": person.user_id, "buyer_user_id": other.user_id, AMOUNTS[rule]: "AMOUNT"}
    for amount in WRONG_AMOUNTS:
        answer = person.call("POST", rule, json.dumps(body).encode().replace(b'"AMOUNT"', amount))
        assert_refused(answer, 400, "VALIDATION_ERROR")


@pytest.mark.parametrize("route", [route for route in PUBLIC if route.takes_id], ids=str)
def test_a_path_with_a_malformed_id_is_invalid_uuid(system: TestSystem, route: Route) -> None:
    person = make_caller(system, route)
    for text in (
        "1",
        "x" * 36,
        AN_ID[:-1],
        AN_ID + "0",
        "%00",
        "%F0%9F%8E%9F",
        "'; DROP TABLE seats; --".replace(" ", "%20"),
    ):
        assert_refused(person.call(route.method, route.with_id(text)), 400, "INVALID_UUID")


@pytest.mark.parametrize("route", PUBLIC, ids=str)
def test_another_method_is_405(system: TestSystem, route: Route) -> None:
    allowed = {other.method for other in PUBLIC if other.rule == route.rule}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - allowed:
        answer = make_caller(system, route).call(method, route.path)
        assert_refused(answer, 405, "METHOD_NOT_ALLOWED")
        assert route.method in answer.headers["Allow"]


@pytest.mark.claim(
    "layers/gateway-guards-routes",
    "token/guards-routes",
    "token/gateway-checks-first",
    "token/type",
    "gateway/jwt-plugin-refuses",
)
@pytest.mark.parametrize("route", [route for route in PUBLIC if route.for_users], ids=str)
def test_no_route_opens_without_a_valid_token(system: TestSystem, route: Route) -> None:
    key, other = (system.env(f"{name}-service")["PRIVATE_KEY"] for name in ("user", "orchestrator"))
    good = {"key": key, "user_id": system.person().user_id, "role": "customer"}
    wrong = {
        "forged": token(**{**good, "key": other}),
        "expired": token(**good, exp=1_700_000_000),
        "of another issuer": token(**good, iss="another"),
        "refresh": token(**good, kind="refresh"),
        "refresh of staff": token(key, system.staff().user_id, "staff", "refresh"),
        "of a service": credential(other, "orchestrator-service", route.service),
        "longer than any login": token(**good, exp=int(time.time()) + 31 * 365 * 86400),
        "no login": token(**good, sid=None),
        "no such role": token(**{**good, "role": "admin"}),
        "no user": token(**{**good, "user_id": "not-a-uuid"}),
        "garbage": "garbage",
        "cut": token(**good)[:-3],
        "empty": "",
        "unsigned": "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0." + token(**good).split(".")[1] + ".",
    }
    visitor = system.visitor()
    for name, text in wrong.items():
        headers = {"Authorization": f"Bearer {text}"}
        at_gateway = visitor.call(route.method, route.path, headers=headers)
        at_service = system.visitor(system.stack.url(route.service)).call(route.method, route.path, headers=headers)
        for answer in (at_gateway, at_service):
            assert answer.status == 401, (name, answer)
        assert_refused(at_gateway, 401, "GATEWAY_REJECTED", "UNAUTHORIZED")
        assert_refused(at_service, 401, "TOKEN_EXPIRED" if name == "expired" else "UNAUTHORIZED")
    assert_refused(visitor.call(route.method, route.path), 401, "GATEWAY_REJECTED")


@pytest.mark.claim("gateway/jwt-plugin-refuses")
def test_a_token_in_the_url_opens_nothing(system: TestSystem) -> None:
    person = system.person()
    for name in ("jwt", "token", "access_token"):
        assert system.visitor().get(f"/api/orders?{name}={person.token}").status == 401


@pytest.mark.parametrize("query", ["page=0", "page=-1", "page=x", "per_page=0", "per_page=101", "page=1e3", "page=٣"])
def test_an_invalid_page_is_a_validation_error(system: TestSystem, query: str) -> None:
    person = system.person()
    for path in ("/api/events", "/api/orders", "/api/transfers"):
        assert_refused(person.get(f"{path}?{query}"), 400, "VALIDATION_ERROR")


@pytest.mark.claim("architecture/only-gateway-is-public", "gateway/public-routes")
def test_internal_paths_are_404_at_the_gateway(system: TestSystem) -> None:
    person = system.person()
    assert_refused(person.get("/api/nothing"), 404, "NOT_FOUND")
    hidden = [(route.method, route.path) for route in endpoints.internal()]
    for method, path in [("GET", "/"), ("GET", "/metrics"), ("GET", "/health/live"), *hidden]:
        assert_refused(person.call(method, path), 404, "GATEWAY_REJECTED")


@pytest.mark.claim("stripe/checks-signature-first")
def test_a_webhook_without_stripes_signature_is_a_validation_error(system: TestSystem) -> None:
    visitor = system.visitor()
    for body in (b"", b"{}", b"\xff", b'{"type": "payment_intent.succeeded"}', b"x" * 60_000):
        for signature in ({}, {"Stripe-Signature": ""}, {"Stripe-Signature": "t=1,v1=00"}, {"Stripe-Signature": "x"}):
            assert_refused(visitor.call("POST", SIGNED, body, signature), 400, "VALIDATION_ERROR")


@pytest.mark.claim("correlation/id-per-request")
def test_a_correlation_id_is_returned_or_replaced(system: TestSystem) -> None:
    given, person = "b1a4e1f0-0000-4000-8000-000000000001", system.person()
    answer = person.call("GET", "/api/nothing", headers={"X-Correlation-ID": given})
    assert answer.headers["X-Correlation-ID"] == answer.envelope["correlation_id"] == given
    for wrong in ("17", "x" * 200, "<script>"):
        assert_refused(person.call("GET", "/api/nothing", headers={"X-Correlation-ID": wrong}), 404, "NOT_FOUND")
