"""Webhooks of the fake Stripe, verified by the SDK: signatures, retries and scripted failures."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import stripe

from tests.support.fake_servers import running
from tests.support.fakes_control import Fake
from tests.support.waiting import wait_until
from tests.unit.fakes.webhook_receiver import Receiver, receiving

pytestmark = pytest.mark.unit

SECRET = "whsec_shared"
KEY = "sk_test_any"


@pytest.fixture(scope="module")
def server() -> Iterator[Fake]:
    with running("fakes.stripe", STRIPE_WEBHOOK_SECRET=SECRET, STRIPE_SECRET_KEY="") as started:
        yield started


@pytest.fixture
def receiver(server: Fake) -> Iterator[Receiver]:
    with receiving(SECRET) as listening:
        server.control("reset")
        server.control("webhooks", url=listening.url, backoff_ms=10)
        yield listening
        server.control("reset")


def create(server: Fake, **params: Any) -> dict[str, Any]:
    data = {"amount": 5000, "currency": "sgd", "metadata[user_id]": "u-1"} | params
    answer = requests.post(f"{server.url}/v1/payment_intents", data=data, auth=(KEY, ""), timeout=5)
    made: dict[str, Any] = answer.json()
    return made


def read_queue(server: Fake) -> list[str]:
    """Return the events that wait for their delivery, or whose delivery has not ended."""
    return [job["event"] for job in server.read("webhooks")["queue"]]


def pay(server: Fake) -> dict[str, Any]:
    return create(server, confirm="true", payment_method="pm_card_visa")


def test_payment_events_are_ordered_and_signed(server: Fake, receiver: Receiver) -> None:
    paid = pay(server)
    created, succeeded = receiver.events(2)
    assert (created.type, succeeded.type) == ("payment_intent.created", "payment_intent.succeeded")
    about: Any = succeeded.data.object
    assert isinstance(about, stripe.PaymentIntent)
    assert (about.id, about.amount_received, about.metadata["user_id"]) == (paid["id"], 5000, "u-1")
    assert created.data.object["status"] == "requires_payment_method"


def test_decline_and_cancellation_have_events(server: Fake, receiver: Receiver) -> None:
    declined = create(server, confirm="true", payment_method="pm_card_chargeDeclined")
    ident = declined["error"]["payment_intent"]["id"]
    requests.post(f"{server.url}/v1/payment_intents/{ident}/cancel", auth=(KEY, ""), timeout=5)
    assert [event.type for event in receiver.events(3)] == [
        "payment_intent.created",
        "payment_intent.payment_failed",
        "payment_intent.canceled",
    ]


def test_failed_delivery_is_retried_until_it_succeeds(server: Fake, receiver: Receiver) -> None:
    receiver.statuses += [500, 302, 400]
    create(server)
    events = receiver.events(4)
    assert len({event.id for event in events}) == 1
    seen = [(d["attempt"], d["status"]) for d in server.read("deliveries")["deliveries"]]
    assert seen[:3] == [(1, 500), (2, 302), (3, 400)]


def test_retries_end(server: Fake, receiver: Receiver) -> None:
    server.control("webhooks", max_attempts=2)
    receiver.statuses += [500, 500]
    create(server)
    receiver.wait(2)
    server.control("events", type="customer.created")  # delivered after the second failure
    assert receiver.events(3)[2].type == "customer.created"
    wait_until(lambda: read_queue(server) == [])


def test_event_is_delivered_once_the_endpoint_is_up(server: Fake, receiver: Receiver) -> None:
    server.control("webhooks", url="http://127.0.0.1:1/nobody", max_attempts=100)
    create(server)
    wait_until(lambda: server.read("deliveries")["deliveries"] != [])
    assert server.read("deliveries")["deliveries"][0]["status"] is None
    server.control("webhooks", url=receiver.url)
    assert receiver.events(1)[0].type == "payment_intent.created"


def test_duplicates_are_copies_of_one_event(server: Fake, receiver: Receiver) -> None:
    server.control("webhooks", copies=5)
    create(server)
    assert len({event.id for event in receiver.events(5)}) == 1
    assert len({body for body, _ in receiver.received}) == 1


def test_held_events_are_released_in_the_given_order(server: Fake, receiver: Receiver) -> None:
    server.control("webhooks", hold=True)
    pay(server)
    assert receiver.received == []
    assert len(server.control("webhooks/release", order="reverse")["released"]) == 2
    assert [event.type for event in receiver.events(2)] == ["payment_intent.succeeded", "payment_intent.created"]


def test_held_event_is_released_by_its_id(server: Fake, receiver: Receiver) -> None:
    server.control("webhooks", hold=True)
    pay(server)
    held = read_queue(server)
    server.control("webhooks/release", order=[held[1]])
    assert [event.id for event in receiver.events(1)] == [held[1]]
    wait_until(lambda: read_queue(server) == [held[0]])  # an event leaves the queue after its delivery


def test_delayed_event_arrives_later(server: Fake, receiver: Receiver) -> None:
    server.control("webhooks", delay_ms=200)
    create(server)
    server.control("webhooks", delay_ms=0)
    server.control("events", type="customer.created")
    assert [event.type for event in receiver.events(2)] == ["customer.created", "payment_intent.created"]


@pytest.mark.parametrize("kind", ["bad", "stale", "none"])
def test_scripted_signature_is_invalid_and_the_retry_valid(server: Fake, receiver: Receiver, kind: str) -> None:
    server.control("webhooks", signatures=[kind, "good"])
    receiver.statuses.append(400)
    create(server)
    (body, wrong), (_, good) = receiver.wait(2)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body, wrong, SECRET)
    assert stripe.Webhook.construct_event(body, good, SECRET)


def test_stale_signature_is_valid_with_a_longer_tolerance(server: Fake, receiver: Receiver) -> None:
    server.control("webhooks", signatures=["stale"])
    create(server)
    ((body, signature),) = receiver.wait(1)
    assert stripe.Webhook.construct_event(body, signature, SECRET, tolerance=3600)


def test_redelivery_returns_the_statuses_of_the_endpoint(server: Fake, receiver: Receiver) -> None:
    create(server)
    ident = receiver.events(1)[0].id
    receiver.statuses += [200, 409]
    assert sorted(server.control(f"events/{ident}/redeliver", copies=2)["statuses"]) == [200, 409]
    assert server.control(f"events/{ident}/redeliver", signatures=["bad"])["statuses"] == [200]
    assert len(receiver.wait(4)) == 4
    assert server.get_refusal("events/evt_nobodys/redeliver") == "no such event"


def test_moved_clock_keeps_signatures_valid(server: Fake, receiver: Receiver) -> None:
    server.control("clock", freeze=1_800_000_000)
    create(server)
    assert receiver.events(1)[0].created == 1_800_000_000


def test_event_of_any_type_can_be_emitted(server: Fake, receiver: Receiver) -> None:
    server.control("events", type="invoice.paid", object={"id": "in_1", "object": "invoice"})
    event: Any = receiver.events(1)[0]
    assert (event.type, event.data.object.id) == ("invoice.paid", "in_1")


def test_reset_empties_the_queue(server: Fake, receiver: Receiver) -> None:
    server.control("webhooks", hold=True)
    create(server)
    server.control("reset")
    server.control("webhooks", url=receiver.url)
    assert server.control("webhooks/release")["released"] == []


@pytest.mark.parametrize(
    "script", [{"copies": 0}, {"signatures": []}, {"signatures": ["forged"]}, {"colour": "red"}, {"delay_ms": -1}]
)
def test_invalid_script_is_refused(server: Fake, receiver: Receiver, script: dict[str, Any]) -> None:
    assert server.get_refusal("webhooks", **script)
