"""The fake Stripe called again: idempotency keys, faults as the SDK sees them, the same state twice."""

import typing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import stripe

from tests.support.fake_servers import running
from tests.support.fakes_control import Fake
from tests.support.waiting import wait_until
from tests.unit.fakes.stripe_client import KEY, TOP_UP, client, kinds, post

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def server() -> Iterator[Fake]:
    with running("fakes.stripe", STRIPE_SECRET_KEY=KEY, STRIPE_WEBHOOK_URL="") as started:
        yield started


@pytest.fixture
def intents(server: Fake) -> Any:
    server.control("reset")
    return client(server).v1.payment_intents


# Idempotency


def test_the_same_key_gives_the_same_answer_and_one_intent(intents: Any, server: Fake) -> None:
    first = intents.create(TOP_UP, {"idempotency_key": "k"})
    again = intents.create(TOP_UP, {"idempotency_key": "k"})
    assert again.to_dict() == first.to_dict()
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert again.last_response.headers["Original-Request"] == first.last_response.headers["Request-Id"]
    assert "Idempotent-Replayed" not in first.last_response.headers
    assert kinds(server) == ["payment_intent.created"]


def test_another_request_under_a_used_key_is_refused(intents: Any) -> None:
    intents.create(TOP_UP, {"idempotency_key": "k"})
    with pytest.raises(stripe.IdempotencyError) as refused:
        intents.create(TOP_UP | {"amount": 5001}, {"idempotency_key": "k"})
    assert refused.value.http_status == 400


def test_a_key_is_free_again_after_a_day(intents: Any, server: Fake) -> None:
    first = intents.create(TOP_UP, {"idempotency_key": "k"})
    server.control("clock", advance=24 * 3600)
    assert intents.create(TOP_UP, {"idempotency_key": "k"}).id != first.id


def test_a_key_remembers_a_decline(intents: Any, server: Fake) -> None:
    made = intents.create(TOP_UP)
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            intents.confirm(made.id, {"payment_method": "pm_card_chargeDeclined"}, {"idempotency_key": "k"})
    assert kinds(server).count("payment_intent.payment_failed") == 1


def test_a_key_forgets_a_bad_parameter(intents: Any) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        intents.create(TOP_UP | {"amount": 1}, {"idempotency_key": "k"})
    assert intents.create(TOP_UP, {"idempotency_key": "k"}).amount == 5000


def test_a_second_call_while_the_first_runs_is_a_conflict(intents: Any, server: Fake) -> None:
    server.add_fault("hang", "/v1/payment_intents", ms=60_000)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, server, "/v1/payment_intents", "k", amount=5000, currency="sgd")
        wait_until(lambda: server.journal() != [])
        second = post(server, "/v1/payment_intents", "k", amount=5000, currency="sgd")
        server.clear("faults")
        assert first.result().status_code == 200
    assert (second.status_code, second.json()["error"]["code"]) == (409, "idempotency_key_in_use")
    replayed = post(server, "/v1/payment_intents", "k", amount=5000, currency="sgd")
    assert replayed.json()["id"] == first.result().json()["id"]


def test_a_500_after_the_effect_stays_under_its_key(intents: Any, server: Fake) -> None:
    server.add_fault("status", "/v1/payment_intents", status=500, effect=True)
    for _ in range(2):
        with pytest.raises(stripe.APIError) as failed:
            intents.create(TOP_UP, {"idempotency_key": "k"})
        assert failed.value.http_status == 500
    assert len(intents.search({"query": "metadata['user_id']:'u-1'"}).data) == 1


def test_the_sdk_retries_a_lost_answer_without_paying_twice(intents: Any, server: Fake) -> None:
    server.add_fault("drop", "/v1/payment_intents", method="POST")
    retrying = client(server, max_network_retries=2).v1.payment_intents
    made = retrying.create(typing.cast(Any, TOP_UP))
    assert [row.id for row in intents.list().data] == [made.id]


# Faults as the SDK sees them


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "reset"}, stripe.APIConnectionError),
        ({"kind": "truncate"}, stripe.APIConnectionError),
        ({"kind": "status", "status": 503}, stripe.APIError),
        ({"kind": "status", "status": 429}, stripe.RateLimitError),
    ],
)
def test_faults_reach_the_sdk_as_its_own_errors(
    intents: Any, server: Fake, fault: dict[str, Any], error: type[Exception]
) -> None:
    server.control("faults", path="/v1/payment_intents", **fault)
    with pytest.raises(error):
        intents.create(TOP_UP)


# State


def script(intents: Any, server: Fake) -> bytes:
    server.control("reset", seed="7")
    made = intents.create(TOP_UP, {"idempotency_key": "a"})
    intents.confirm(made.id, {"payment_method": "pm_card_visa"}, {"idempotency_key": "b"})
    with pytest.raises(stripe.InvalidRequestError):
        intents.cancel(made.id, {}, {"idempotency_key": "c"})
    return requests.get(f"{server.url}/_control/journal", timeout=5).content


def test_the_same_seed_and_calls_give_the_same_journal(intents: Any, server: Fake) -> None:
    first, second = script(intents, server), script(intents, server)
    assert first == second
    assert first.count(b'"n":') == 3
    assert KEY.encode() not in first


def test_a_restored_snapshot_is_the_same_state_again(intents: Any, server: Fake) -> None:
    made = intents.create(TOP_UP, {"idempotency_key": "k"})
    taken = server.read("snapshot")
    paid = intents.confirm(made.id, {"payment_method": "pm_card_visa"})
    server.control("restore", **taken)
    assert intents.retrieve(made.id).status == "requires_payment_method"
    assert intents.create(TOP_UP, {"idempotency_key": "k"}).id == made.id
    assert intents.confirm(made.id, {"payment_method": "pm_card_visa"}).latest_charge != paid.latest_charge
