"""Top-ups: one PaymentIntent a key, however badly Stripe answers."""

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
from tests.unit.user.user_app import STRIPE_BASE, STRIPE_KEY, UserApp, refusal

pytestmark = pytest.mark.unit

INTENTS = f"{STRIPE_BASE}/v1/payment_intents"


@pytest.fixture
def stripe_api() -> Iterator[Stubs]:
    with Stubs() as stub:
        yield stub


def intent(number: int = 1, topup_key: str = "k") -> dict[str, Any]:
    own = {"id": f"pi_{number}", "client_secret": f"pi_{number}_secret_x", "metadata": {"topup_key": topup_key}}
    return {**example("stripe", "POST", "/v1/payment_intents", 200), **own}


def listed(*found: dict[str, Any]) -> dict[str, Any]:
    return {"object": "list", "data": list(found), "has_more": False, "url": "/v1/payment_intents"}


def top_up(users: UserApp, user: UUID, amount: Any = 20, key: str = "topup:u:1:create", **headers: str) -> Any:
    return users.call("POST", "/credits/topup", {"key": key, "user_id": user, "amount": amount}, **headers)


def asked(stub: Stubs) -> list[str]:
    return [str(call.request.method) for call in stub.calls]


@pytest.mark.claim("stripe/payment-intent")
def test_a_top_up_asks_stripe_for_an_intent_in_cents(users: UserApp, stripe_api: Stubs) -> None:
    stripe_api.answers("POST", INTENTS, json=intent())
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
    assert users.balance(user) == 100  # the webhook credits, nobody else


def test_stripe_is_given_up_before_our_caller_gives_up() -> None:
    assert sum(payments.TIMEOUT) < CALL_SECONDS


@pytest.mark.parametrize("amount", [Decimal("0.49"), Decimal("10000.01"), Decimal("0.01"), 99999999])
def test_an_amount_that_stripe_would_not_take_is_refused(users: UserApp, stripe_api: Stubs, amount: Any) -> None:
    assert refusal(top_up(users, users.new_user(), amount)) == "VALIDATION_ERROR"
    assert asked(stripe_api) == []


@pytest.mark.parametrize("amount", [Decimal("0.50"), 10000])
def test_the_least_and_the_most_are_taken(users: UserApp, stripe_api: Stubs, amount: Any) -> None:
    stripe_api.answers("POST", INTENTS, json=intent())
    assert top_up(users, users.new_user(), amount).status_code == 200


def test_an_unknown_user_is_404(users: UserApp, stripe_api: Stubs) -> None:
    assert refusal(top_up(users, uuid4())) == "USER_NOT_FOUND"
    assert asked(stripe_api) == []


REFUSED = {"error": {"type": "invalid_request_error", "message": "x"}}
NO_ANSWER = [
    {"status": 500, "json": {"error": {"type": "api_error", "message": "x"}}}, {"status": 503},
    {"body": requests.ReadTimeout()}, {"body": requests.ConnectionError("reset")}, {"body": "<html>", "status": 200},
]  # fmt: skip


@pytest.mark.parametrize("failure", NO_ANSWER, ids=str)
def test_an_intent_that_was_made_without_an_answer_is_found(
    users: UserApp, stripe_api: Stubs, failure: dict[str, Any]
) -> None:
    stripe_api.misbehaves("POST", INTENTS, **failure)
    stripe_api.answers(
        "GET", INTENTS, json=listed(intent(3, "other"), intent(2, "topup:u:1:create"), intent(1, "other"))
    )
    answer = top_up(users, users.new_user())
    assert answer.get_json()["data"]["payment_intent_id"] == "pi_2"
    assert asked(stripe_api) == ["POST", "GET"]


def test_after_a_5xx_that_made_nothing_another_key_is_tried(users: UserApp, stripe_api: Stubs) -> None:
    stripe_api.misbehaves("POST", INTENTS, status=500)
    stripe_api.answers("POST", INTENTS, json=intent(7))
    stripe_api.answers("GET", INTENTS, json=listed())
    assert top_up(users, users.new_user()).get_json()["data"]["payment_intent_id"] == "pi_7"
    first, _, second = (call.request for call in stripe_api.calls)
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]
    assert "metadata[topup_key]=topup%3Au%3A1%3Acreate" in str(second.body)


def test_after_silence_that_made_nothing_the_same_key_has_to_be_asked_again(users: UserApp, stripe_api: Stubs) -> None:
    stripe_api.misbehaves("POST", INTENTS, body=requests.ReadTimeout())
    stripe_api.answers("GET", INTENTS, json=listed())
    answer = top_up(users, users.new_user())
    assert (answer.status_code, refusal(answer)) == (503, "SERVICE_UNAVAILABLE")
    assert asked(stripe_api) == ["POST", "GET"]


@pytest.mark.parametrize("failure", NO_ANSWER, ids=str)
def test_stripe_down_is_503(users: UserApp, stripe_api: Stubs, failure: dict[str, Any]) -> None:
    stripe_api.misbehaves("POST", INTENTS, **failure)
    stripe_api.misbehaves("GET", INTENTS, **failure)
    answer = top_up(users, users.new_user())
    assert (answer.status_code, refusal(answer)) == (503, "SERVICE_UNAVAILABLE")


@pytest.mark.parametrize("status", [400, 401, 403, 409])
def test_a_refusal_by_stripe_is_ours_to_mend_and_503(users: UserApp, stripe_api: Stubs, status: int) -> None:
    stripe_api.answers("POST", INTENTS, status=status, json=REFUSED)
    assert top_up(users, users.new_user()).status_code == 503
    assert asked(stripe_api) == ["POST"]


@pytest.mark.parametrize("status", [402, 404, 429])
def test_a_refusal_that_stripe_has_never_given_is_503_too(users: UserApp, stripe_api: Stubs, status: int) -> None:
    stripe_api.misbehaves("POST", INTENTS, status=status, json=REFUSED)
    assert top_up(users, users.new_user()).status_code == 503
    assert asked(stripe_api) == ["POST"]


def test_a_key_with_another_body_is_422(users: UserApp, stripe_api: Stubs) -> None:
    stripe_api.answers("POST", INTENTS, status=400, json={"error": {"type": "idempotency_error", "message": "x"}})
    assert refusal(top_up(users, users.new_user())) == "IDEMPOTENCY_KEY_REUSED"
