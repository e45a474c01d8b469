"""Top-ups: one PaymentIntent per key, for every failure of Stripe."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID, uuid4

import pytest
import requests

from services.chassis.clients import CALL_SECONDS
from services.user import payments
from tests.support.stubs import Stubs, example
from tests.unit.user.user_app import STRIPE_BASE, STRIPE_KEY, UserApp, error_code

pytestmark = pytest.mark.unit

INTENTS = f"{STRIPE_BASE}/v1/payment_intents"


@pytest.fixture
def stripe_api() -> Iterator[Stubs]:
    with Stubs() as stub:
        yield stub


def intent(number: int = 1, topup_key: str = "k") -> dict[str, Any]:
    own = {"id": f"pi_{number}", "client_secret": f"pi_{number}_secret_x", "metadata": {"topup_key": topup_key}}
    return {**example("stripe", "POST", "/v1/payment_intents", 200), **own}


def list_body(*found: dict[str, Any]) -> dict[str, Any]:
    return {"object": "list", "data": list(found), "has_more": False, "url": "/v1/payment_intents"}


def top_up(users: UserApp, user: UUID, amount: Any = 20, key: str = "topup:u:1:create", **headers: str) -> Any:
    return users.call("POST", "/credits/topup", {"key": key, "user_id": user, "amount": amount}, **headers)


def list_methods(stub: Stubs) -> list[str]:
    return [str(call.request.method) for call in stub.calls]


@pytest.mark.claim("stripe/payment-intent")
def test_top_up_creates_an_intent_in_cents(users: UserApp, stripe_api: Stubs) -> None:
    stripe_api.respond("POST", INTENTS, json=intent())
    user, correlation = users.new_user(), str(uuid4())
    answer = top_up(users, user, Decimal("20.55"), **{"X-Correlation-ID": correlation})
    assert answer.get_json()["data"] == {
        "payment_intent_id": "pi_1", "client_secret": "pi_1_secret_x", "amount": 20.55, "currency": "sgd",
    }  # fmt: skip
    request = stripe_api.calls[0].request
    sent = {name: values[0] for name, values in parse_qs(str(request.body)).items()}
    assert (sent["amount"], sent["currency"]) == ("2055", "sgd")
    assert (sent["metadata[user_id]"], sent["metadata[topup_key]"]) == (str(user), "topup:u:1:create")
    assert request.headers["Idempotency-Key"] == "topup:u:1:create"
    assert request.headers["Authorization"] == f"Bearer {STRIPE_KEY}"
    assert request.headers["X-Correlation-ID"] == correlation
    assert users.balance(user) == 100  # only the webhook adds credits


def test_stripe_timeout_is_shorter_than_the_callers() -> None:
    assert sum(payments.TIMEOUT) < CALL_SECONDS


@pytest.mark.parametrize("amount", [Decimal("0.49"), Decimal("10000.01"), Decimal("0.01"), 99999999])
def test_amount_outside_the_limits_is_refused(users: UserApp, stripe_api: Stubs, amount: Any) -> None:
    assert error_code(top_up(users, users.new_user(), amount)) == "VALIDATION_ERROR"
    assert list_methods(stripe_api) == []


@pytest.mark.parametrize("amount", [Decimal("0.50"), 10000])
def test_amount_at_the_limits_is_accepted(users: UserApp, stripe_api: Stubs, amount: Any) -> None:
    stripe_api.respond("POST", INTENTS, json=intent())
    assert top_up(users, users.new_user(), amount).status_code == 200


def test_unknown_user_is_404(users: UserApp, stripe_api: Stubs) -> None:
    assert error_code(top_up(users, uuid4())) == "USER_NOT_FOUND"
    assert list_methods(stripe_api) == []


REFUSED = {"error": {"type": "invalid_request_error", "message": "x"}}
NO_ANSWER = [
    {"status": 500, "json": {"error": {"type": "api_error", "message": "x"}}}, {"status": 503},
    {"body": requests.ReadTimeout()}, {"body": requests.ConnectionError("reset")}, {"body": "<html>", "status": 200},
]  # fmt: skip


@pytest.mark.parametrize("failure", NO_ANSWER, ids=str)
def test_intent_with_a_lost_answer_is_found(users: UserApp, stripe_api: Stubs, failure: dict[str, Any]) -> None:
    stripe_api.respond_wrongly("POST", INTENTS, **failure)
    stripe_api.respond(
        "GET", INTENTS, json=list_body(intent(3, "other"), intent(2, "topup:u:1:create"), intent(1, "other"))
    )
    answer = top_up(users, users.new_user())
    assert answer.get_json()["data"]["payment_intent_id"] == "pi_2"
    assert list_methods(stripe_api) == ["POST", "GET"]


def test_5xx_without_an_intent_is_retried_under_another_key(users: UserApp, stripe_api: Stubs) -> None:
    stripe_api.respond_wrongly("POST", INTENTS, status=500)
    stripe_api.respond("POST", INTENTS, json=intent(7))
    stripe_api.respond("GET", INTENTS, json=list_body())
    assert top_up(users, users.new_user()).get_json()["data"]["payment_intent_id"] == "pi_7"
    first, _, second = (call.request for call in stripe_api.calls)
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]
    assert "metadata[topup_key]=topup%3Au%3A1%3Acreate" in str(second.body)


def test_timeout_without_an_intent_is_503(users: UserApp, stripe_api: Stubs) -> None:
    stripe_api.respond_wrongly("POST", INTENTS, body=requests.ReadTimeout())
    stripe_api.respond("GET", INTENTS, json=list_body())
    answer = top_up(users, users.new_user())
    assert (answer.status_code, error_code(answer)) == (503, "SERVICE_UNAVAILABLE")
    assert list_methods(stripe_api) == ["POST", "GET"]


@pytest.mark.parametrize("failure", NO_ANSWER, ids=str)
def test_stripe_down_is_503(users: UserApp, stripe_api: Stubs, failure: dict[str, Any]) -> None:
    stripe_api.respond_wrongly("POST", INTENTS, **failure)
    stripe_api.respond_wrongly("GET", INTENTS, **failure)
    answer = top_up(users, users.new_user())
    assert (answer.status_code, error_code(answer)) == (503, "SERVICE_UNAVAILABLE")


@pytest.mark.parametrize("status", [400, 401, 403, 409])
def test_refusal_by_stripe_is_503(users: UserApp, stripe_api: Stubs, status: int) -> None:
    stripe_api.respond("POST", INTENTS, status=status, json=REFUSED)
    assert top_up(users, users.new_user()).status_code == 503
    assert list_methods(stripe_api) == ["POST"]


@pytest.mark.parametrize("status", [402, 404, 429])
def test_unspecified_refusal_by_stripe_is_503(users: UserApp, stripe_api: Stubs, status: int) -> None:
    stripe_api.respond_wrongly("POST", INTENTS, status=status, json=REFUSED)
    assert top_up(users, users.new_user()).status_code == 503
    assert list_methods(stripe_api) == ["POST"]


def test_key_with_another_body_is_422(users: UserApp, stripe_api: Stubs) -> None:
    stripe_api.respond("POST", INTENTS, status=400, json={"error": {"type": "idempotency_error", "message": "x"}})
    assert error_code(top_up(users, users.new_user())) == "IDEMPOTENCY_KEY_REUSED"
