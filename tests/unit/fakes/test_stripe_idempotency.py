"""The fake Stripe with retries: idempotency keys, and faults with the SDK."""

import typing
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import stripe

from tests.support.fakes_control import Fake
from tests.support.waiting import wait_until
from tests.unit.fakes.stripe_client import TOP_UP, client, event_types, post

pytestmark = pytest.mark.unit


# Idempotency


def test_same_key_returns_the_first_answer(intents: Any, stripe_server: Fake) -> None:
    first = intents.create(TOP_UP, {"idempotency_key": "k"})
    again = intents.create(TOP_UP, {"idempotency_key": "k"})
    assert again.to_dict() == first.to_dict()
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert again.last_response.headers["Original-Request"] == first.last_response.headers["Request-Id"]
    assert "Idempotent-Replayed" not in first.last_response.headers
    assert event_types(stripe_server) == ["payment_intent.created"]


def test_used_key_with_other_parameters_is_refused(intents: Any) -> None:
    intents.create(TOP_UP, {"idempotency_key": "k"})
    with pytest.raises(stripe.IdempotencyError) as refused:
        intents.create(TOP_UP | {"amount": 5001}, {"idempotency_key": "k"})
    assert refused.value.http_status == 400


def test_key_expires_after_a_day(intents: Any, stripe_server: Fake) -> None:
    first = intents.create(TOP_UP, {"idempotency_key": "k"})
    stripe_server.control("clock", advance=24 * 3600)
    assert intents.create(TOP_UP, {"idempotency_key": "k"}).id != first.id


def test_key_stores_a_decline(intents: Any, stripe_server: Fake) -> None:
    made = intents.create(TOP_UP)
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            intents.confirm(made.id, {"payment_method": "pm_card_chargeDeclined"}, {"idempotency_key": "k"})
    assert event_types(stripe_server).count("payment_intent.payment_failed") == 1


def test_key_does_not_store_an_invalid_parameter(intents: Any) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        intents.create(TOP_UP | {"amount": 1}, {"idempotency_key": "k"})
    assert intents.create(TOP_UP, {"idempotency_key": "k"}).amount == 5000


def test_second_call_while_the_first_runs_is_409(intents: Any, stripe_server: Fake) -> None:
    stripe_server.add_fault("hang", "/v1/payment_intents", ms=60_000)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, stripe_server, "/v1/payment_intents", "k", amount=5000, currency="sgd")
        wait_until(lambda: stripe_server.journal() != [])
        second = post(stripe_server, "/v1/payment_intents", "k", amount=5000, currency="sgd")
        stripe_server.clear("faults")
        assert first.result().status_code == 200
    assert (second.status_code, second.json()["error"]["code"]) == (409, "idempotency_key_in_use")
    replayed = post(stripe_server, "/v1/payment_intents", "k", amount=5000, currency="sgd")
    assert replayed.json()["id"] == first.result().json()["id"]


def test_key_stores_a_500_after_the_effect(intents: Any, stripe_server: Fake) -> None:
    stripe_server.add_fault("status", "/v1/payment_intents", status=500, effect=True)
    for _ in range(2):
        with pytest.raises(stripe.APIError) as failed:
            intents.create(TOP_UP, {"idempotency_key": "k"})
        assert failed.value.http_status == 500
    assert len(intents.search({"query": "metadata['user_id']:'u-1'"}).data) == 1


def test_sdk_retries_a_lost_answer_without_a_second_intent(intents: Any, stripe_server: Fake) -> None:
    stripe_server.add_fault("drop", "/v1/payment_intents", method="POST")
    retrying = client(stripe_server, max_network_retries=2).v1.payment_intents
    made = retrying.create(typing.cast(Any, TOP_UP))
    assert [row.id for row in intents.list().data] == [made.id]


# Faults with the SDK


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "reset"}, stripe.APIConnectionError),
        ({"kind": "truncate"}, stripe.APIConnectionError),
        ({"kind": "status", "status": 503}, stripe.APIError),
        ({"kind": "status", "status": 429}, stripe.RateLimitError),
    ],
)
def test_sdk_raises_its_own_errors_for_faults(
    intents: Any, stripe_server: Fake, fault: dict[str, Any], error: type[Exception]
) -> None:
    stripe_server.control("faults", path="/v1/payment_intents", **fault)
    with pytest.raises(error):
        intents.create(TOP_UP)
