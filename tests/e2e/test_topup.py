"""A card payment adds its credits once. They are taken back if Stripe takes the payment back."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.support.concurrency import outcomes, run_concurrently
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants", "restore_webhooks")]

DEFAULTS: dict[str, Any] = {"copies": 1, "hold": False, "signatures": ["good"], "max_attempts": 10}
WEBHOOK = "/api/webhooks/stripe"


@pytest.fixture
def restore_webhooks(system: TestSystem) -> Iterator[None]:
    """Restore the defaults of the webhooks after each test."""
    yield
    system.stripe.control("webhooks", **DEFAULTS)


def start_top_up(person: Person, amount: int = 40) -> str:
    """Create a PaymentIntent and return its id."""
    return str(person.top_up(amount).must(200)["payment_intent_id"])


def list_top_ups(system: TestSystem, person: Person) -> list[Any]:
    """List the amounts that payments credited."""
    sql = "SELECT amount FROM credit_entries WHERE user_id = %s AND kind = 'TOPUP'"
    return [row["amount"] for row in system.rows("users_db", sql, person.user_id)]


def list_deliveries(system: TestSystem, intent: str, kind: str = "payment_intent.succeeded") -> list[dict[str, Any]]:
    """List the attempts to deliver the events of an intent."""
    events = {e["id"] for e in list_events(system, intent) if e["type"] == kind}
    return [d for d in system.stripe.read("deliveries")["deliveries"] if d["event"] in events]


def list_events(system: TestSystem, intent: str) -> list[dict[str, Any]]:
    """List the events of an intent."""
    stored = system.stripe.read("snapshot")["store"]["events"]
    return [event for event in stored.values() if event["data"]["object"]["id"] == intent]


def find_success_event(system: TestSystem, intent: str) -> str:
    """Return the id of the event that reports the payment."""
    (event,) = [e["id"] for e in list_events(system, intent) if e["type"] == "payment_intent.succeeded"]
    return str(event)


def test_five_copies_of_an_event_credit_once(system: TestSystem) -> None:
    person = system.person("0.00")
    system.stripe.control("webhooks", copies=5)
    intent = start_top_up(person)
    assert system.pay_by_card(intent) == 200
    system.wait_until(
        "User takes five copies", lambda: [d["status"] for d in list_deliveries(system, intent)] == [200] * 5
    )
    assert (list_top_ups(system, person), person.balance()) == ([40], 40)
    again = system.stripe.control(f"events/{find_success_event(system, intent)}/redeliver", copies=5)
    assert again["statuses"] == [200] * 5
    assert list_top_ups(system, person) == [40]


@pytest.mark.claim(
    "protocols/webhook-adds-credits",
    "stripe/payment-intent",
    "stripe/webhook-reports-payment",
    "schema/users.credit_balance",
)
def test_a_payment_confirmed_twice_credits_once(system: TestSystem) -> None:
    person = system.person("0.00")
    intent = start_top_up(person)
    statuses = run_concurrently([lambda: system.pay_by_card(intent)] * 4)
    assert 200 in statuses
    system.wait_until("it is credited", lambda: list_top_ups(system, person))
    assert system.pay_by_card(intent) == 400
    assert (list_top_ups(system, person), person.balance()) == ([40], 40)


@pytest.mark.claim("stripe/checks-signature-first")
@pytest.mark.parametrize("card", ["pm_card_chargeDeclined", "pm_card_chargeDeclinedInsufficientFunds"])
def test_a_declined_card_credits_nothing_and_the_next_one_once(system: TestSystem, card: str) -> None:
    person = system.person("0.00")
    intent = start_top_up(person)
    assert system.pay_by_card(intent, card) == 402
    system.wait_until("User gets the event", lambda: list_deliveries(system, intent, "payment_intent.payment_failed"))
    assert (list_top_ups(system, person), person.balance()) == ([], 0)
    assert system.pay_by_card(intent) == 200
    system.wait_until("it is credited", lambda: list_top_ups(system, person) == [40])


@pytest.mark.claim("stripe/checks-signature-first")
@pytest.mark.parametrize("signature", ["stale", "bad", "none"])
def test_a_stale_or_forged_webhook_is_refused_and_credits_nothing(system: TestSystem, signature: str) -> None:
    person = system.person("0.00")
    system.stripe.control("webhooks", signatures=[signature], max_attempts=1)
    intent = start_top_up(person)
    assert system.pay_by_card(intent) == 200
    system.wait_until("User refuses the event", lambda: [d["status"] for d in list_deliveries(system, intent)] == [400])
    webhook = f"http://{system.stack.peers('api-gateway', 8000)}{WEBHOOK}"
    event = find_success_event(system, intent)
    refused = system.stripe.control(f"events/{event}/redeliver", signatures=[signature] * 3, url=webhook)
    assert refused["statuses"] == [400] * 3
    assert list_top_ups(system, person) == []
    assert system.stripe.control(f"events/{event}/redeliver", url=webhook)["statuses"] == [200]
    assert list_top_ups(system, person) == [40]


def test_events_in_the_wrong_order_credit_once(system: TestSystem) -> None:
    person = system.person("0.00")
    system.stripe.control("webhooks", hold=True)
    intent = start_top_up(person)
    system.pay_by_card(intent)
    system.stripe.control("webhooks/release", order="reverse")
    for kind in {event["type"] for event in list_events(system, intent)}:
        system.wait_until(f"{kind} is delivered", partial(list_deliveries, system, intent, kind))
    assert list_top_ups(system, person) == [40]


def test_a_refused_webhook_is_sent_again_and_credits_once(system: TestSystem) -> None:
    person = system.person("0.00")
    system.stripe.control("webhooks", signatures=["bad", "bad", "good"])
    intent = start_top_up(person)
    system.pay_by_card(intent)
    system.wait_until("the third attempt is credited", lambda: list_top_ups(system, person) == [40])
    assert [d["status"] for d in list_deliveries(system, intent)] == [400, 400, 200]


def test_an_event_of_another_kind_is_acknowledged(system: TestSystem) -> None:
    event = system.stripe.control("events", type="customer.created", object={"id": "cus_1"})
    assert system.stripe.control(f"events/{event['id']}/redeliver")["statuses"] == [200]


def test_a_top_up_during_an_outage_is_503_and_can_be_retried(system: TestSystem) -> None:
    person = system.person("0.00")
    key = {"Idempotency-Key": f"later-{person.user_id}"}
    with system.stripe.fault("reset", "/v1/*"):
        assert outcomes([person.top_up(30, **key)]) == {"503 SERVICE_UNAVAILABLE": 1}
    answer = person.top_up(30, **key).must(200)
    assert (answer["amount"], answer["currency"]) == (30, "sgd")
    system.pay_by_card(answer["payment_intent_id"])
    system.wait_until("it is credited", lambda: list_top_ups(system, person) == [30])


def read_credits(system: TestSystem, person: Person) -> tuple[Any, Any]:
    """Return the free and the frozen credits of a user."""
    sql = "SELECT credit_balance, frozen_credits FROM users WHERE user_id = %s"
    (row,) = system.rows("users_db", sql, person.user_id)
    return row["credit_balance"], row["frozen_credits"]


def pay(system: TestSystem, person: Person, amount: int) -> str:
    """Top up by card, wait for the credits, and return the id of the PaymentIntent."""
    before, _ = read_credits(system, person)
    intent = start_top_up(person, amount)
    system.pay_by_card(intent)
    system.wait_until("it is credited", lambda: read_credits(system, person)[0] == before + amount)
    return intent


def test_a_refund_takes_back_what_is_left_and_the_rest_later(system: TestSystem) -> None:
    person = system.person("0.00")
    intent = pay(system, person, 400)
    system.buy_seat(person)
    left, _ = read_credits(system, person)
    assert 0 < left < 400
    system.stripe.control(f"payment_intents/{intent}/refund")
    system.wait_until("the rest is taken", lambda: read_credits(system, person) == (0, 0))
    debt = 400 - left
    second = start_top_up(person, 500)
    system.pay_by_card(second)
    system.wait_until("the debt is collected", lambda: read_credits(system, person) == (500 - debt, 0))


@pytest.mark.parametrize(("status", "credits"), [("won", (60, 0)), ("lost", (0, 0))])
def test_a_dispute_freezes_the_credits_until_it_is_closed(
    system: TestSystem, status: str, credits: tuple[int, int]
) -> None:
    person = system.person("0.00")
    intent = pay(system, person, 60)
    system.stripe.control("webhooks", copies=3)
    dispute = system.stripe.control(f"payment_intents/{intent}/dispute")
    system.wait_until("the credits are frozen", lambda: read_credits(system, person) == (0, 60))
    system.stripe.control(f"disputes/{dispute['id']}/close", status=status)
    system.wait_until("the dispute is settled", lambda: read_credits(system, person) == credits)


@pytest.mark.parametrize("amount", [0.49, 10_000.01])
def test_an_amount_outside_the_limits_is_a_validation_error(system: TestSystem, amount: float) -> None:
    assert outcomes([system.person().top_up(amount)]) == {"400 VALIDATION_ERROR": 1}
