"""Money in: a card payment becomes credits once, whatever is duplicated, reordered, late or forged (issue 4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.concurrency import outcomes, run_concurrently
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants", "calm_stripe")]

CALM: dict[str, Any] = {"copies": 1, "hold": False, "signatures": ["good"], "max_attempts": 10}
WEBHOOK = "/api/webhooks/stripe"


@pytest.fixture
def calm_stripe(system: TestSystem) -> Iterator[None]:
    """Webhooks go out as usual again at the end."""
    yield
    system.stripe.control("webhooks", **CALM)


def intent_of(person: Person, amount: int = 40) -> str:
    """A PaymentIntent that waits for a card."""
    return str(person.top_up(amount).must(200)["payment_intent_id"])


def top_ups(system: TestSystem, person: Person) -> list[Any]:
    """What was credited by payments."""
    sql = "SELECT amount FROM credit_entries WHERE user_id = %s AND kind = 'TOPUP'"
    return [row["amount"] for row in system.rows("users_db", sql, person.user_id)]


def deliveries(system: TestSystem, intent: str, kind: str = "payment_intent.succeeded") -> list[dict[str, Any]]:
    """Each attempt of Stripe's to tell of an intent."""
    events = {e["id"] for e in events_of(system, intent) if e["type"] == kind}
    return [d for d in system.stripe.read("deliveries")["deliveries"] if d["event"] in events]


def events_of(system: TestSystem, intent: str) -> list[dict[str, Any]]:
    """All that Stripe has to tell of an intent."""
    stored = system.stripe.read("snapshot")["store"]["events"]
    return [event for event in stored.values() if event["data"]["object"]["id"] == intent]


def succeeded(system: TestSystem, intent: str) -> str:
    """The id of the event that says it was paid."""
    (event,) = [e["id"] for e in events_of(system, intent) if e["type"] == "payment_intent.succeeded"]
    return str(event)


def test_the_same_event_five_times_at_once_credits_once(system: TestSystem) -> None:
    person = system.person("0.00")
    system.stripe.control("webhooks", copies=5)
    intent = intent_of(person)
    assert system.pay_by_card(intent) == 200
    system.wait_until("five copies were taken", lambda: [d["status"] for d in deliveries(system, intent)] == [200] * 5)
    assert (top_ups(system, person), person.balance()) == ([40], 40)
    again = system.stripe.control(f"events/{succeeded(system, intent)}/redeliver", copies=5)
    assert again["statuses"] == [200] * 5
    assert top_ups(system, person) == [40]


@pytest.mark.claim(
    "protocols/webhook-adds-credits",
    "stripe/payment-intent",
    "stripe/webhook-reports-payment",
    "schema/users.credit_balance",
)
def test_a_payment_confirmed_twice_credits_once(system: TestSystem) -> None:
    person = system.person("0.00")
    intent = intent_of(person)
    statuses = run_concurrently([lambda: system.pay_by_card(intent)] * 4)
    assert 200 in statuses
    system.wait_until("it is credited", lambda: top_ups(system, person))
    assert system.pay_by_card(intent) == 400
    assert (top_ups(system, person), person.balance()) == ([40], 40)


@pytest.mark.claim("stripe/checks-signature-first")
@pytest.mark.parametrize("card", ["pm_card_chargeDeclined", "pm_card_chargeDeclinedInsufficientFunds"])
def test_a_declined_card_credits_nothing_and_the_next_card_credits_once(system: TestSystem, card: str) -> None:
    person = system.person("0.00")
    intent = intent_of(person)
    assert system.pay_by_card(intent, card) == 402
    system.wait_until("User was told", lambda: deliveries(system, intent, "payment_intent.payment_failed"))
    assert (top_ups(system, person), person.balance()) == ([], 0)
    assert system.pay_by_card(intent) == 200
    system.wait_until("it is credited", lambda: top_ups(system, person) == [40])


@pytest.mark.claim("stripe/checks-signature-first")
@pytest.mark.parametrize("signature", ["stale", "bad", "none"])
def test_a_stale_or_forged_webhook_is_refused_and_credits_nothing(system: TestSystem, signature: str) -> None:
    person = system.person("0.00")
    system.stripe.control("webhooks", signatures=[signature], max_attempts=1)
    intent = intent_of(person)
    assert system.pay_by_card(intent) == 200
    system.wait_until("User has refused", lambda: [d["status"] for d in deliveries(system, intent)] == [400])
    at_the_gateway = f"http://{system.stack.peers('api-gateway', 8000)}{WEBHOOK}"
    event = succeeded(system, intent)
    refused = system.stripe.control(f"events/{event}/redeliver", signatures=[signature] * 3, url=at_the_gateway)
    assert refused["statuses"] == [400] * 3
    assert top_ups(system, person) == []
    assert system.stripe.control(f"events/{event}/redeliver", url=at_the_gateway)["statuses"] == [200]
    assert top_ups(system, person) == [40]


def test_events_that_come_in_the_wrong_order_credit_once(system: TestSystem) -> None:
    person = system.person("0.00")
    system.stripe.control("webhooks", hold=True)
    intent = intent_of(person)
    system.pay_by_card(intent)
    system.stripe.control("webhooks/release", order="reverse")
    system.wait_until(
        "all were taken", lambda: all(deliveries(system, intent, kind) for kind in kinds_of(system, intent))
    )
    assert top_ups(system, person) == [40]


def kinds_of(system: TestSystem, intent: str) -> set[str]:
    """The types of events of an intent."""
    return {event["type"] for event in events_of(system, intent)}


def test_a_webhook_that_user_could_not_take_is_sent_again_and_credits_once(system: TestSystem) -> None:
    person = system.person("0.00")
    system.stripe.control("webhooks", signatures=["bad", "bad", "good"])
    intent = intent_of(person)
    system.pay_by_card(intent)
    system.wait_until("the third attempt is credited", lambda: top_ups(system, person) == [40])
    assert [d["status"] for d in deliveries(system, intent)] == [400, 400, 200]


def test_an_event_of_another_kind_is_acknowledged(system: TestSystem) -> None:
    event = system.stripe.control("events", type="customer.created", object={"id": "cus_1"})
    assert system.stripe.control(f"events/{event['id']}/redeliver")["statuses"] == [200]


def test_stripe_that_does_not_answer_is_503_and_the_same_key_succeeds_later(system: TestSystem) -> None:
    person = system.person("0.00")
    key = {"Idempotency-Key": f"later-{person.user_id}"}
    with system.stripe.fault("reset", "/v1/*"):
        assert outcomes([person.top_up(30, **key)]) == {"503 SERVICE_UNAVAILABLE": 1}
    answer = person.top_up(30, **key).must(200)
    assert (answer["amount"], answer["currency"]) == (30, "sgd")
    system.pay_by_card(answer["payment_intent_id"])
    system.wait_until("it is credited", lambda: top_ups(system, person) == [30])


@pytest.mark.parametrize("amount", [0.49, 10_000.01])
def test_an_amount_that_no_card_pays_is_a_validation_error(system: TestSystem, amount: float) -> None:
    assert outcomes([system.person().top_up(amount)]) == {"400 VALIDATION_ERROR": 1}
