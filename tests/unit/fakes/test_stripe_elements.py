"""The stand-in for Stripe.js over HTTP: its script, its card form and 3-D Secure."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from fakes.stripe.cards import CARDS, NUMBERS
from tests.support.fakes_control import Fake
from tests.unit.fakes.stripe_client import TOP_UP, event_types

pytestmark = pytest.mark.unit

PUBLISHABLE = {"Authorization": "Bearer pk_test_x"}


def authenticate(server: Fake, intent: str, secret: str, passed: str) -> requests.Response:
    sent = {"payment_intent": intent, "client_secret": secret, "passed": passed}
    return requests.post(f"{server.url}/elements/authenticate", data=sent, headers=PUBLISHABLE, timeout=5)


def test_script_and_card_form_are_served_without_inline_code(stripe_server: Fake) -> None:
    script = requests.get(f"{stripe_server.url}/v3/", timeout=5)
    form = requests.get(f"{stripe_server.url}/elements/payment.html", timeout=5)
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert form.headers["Content-Type"].startswith("text/html")
    for answer in (script, form):
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"


def test_form_lists_each_card_with_its_outcome(stripe_server: Fake) -> None:
    cards = requests.get(f"{stripe_server.url}/elements/cards", timeout=5).json()
    assert {card["number"]: card["method"] for card in cards} == NUMBERS
    assert all(card["outcome"] for card in cards)
    assert "3-D Secure" in next(card["outcome"] for card in cards if CARDS[card["method"]].challenge)


@pytest.mark.parametrize("number", NUMBERS)
def test_card_number_is_that_of_its_card_and_passes_the_check_digit(number: str) -> None:
    doubled = [int(digit) * (1 + at % 2) for at, digit in enumerate(reversed(number))]
    assert sum(value - 9 * (value > 9) for value in doubled) % 10 == 0
    assert number.endswith(CARDS[NUMBERS[number]].last4)


@pytest.mark.parametrize(
    ("passed", "status", "event"),
    [
        ("true", "succeeded", "payment_intent.succeeded"),
        ("false", "requires_payment_method", "payment_intent.payment_failed"),
    ],
)
def test_answer_of_the_customer_ends_3d_secure(
    intents: Any, stripe_server: Fake, passed: str, status: str, event: str
) -> None:
    intent = intents.create(TOP_UP)
    confirm = {"payment_method": NUMBERS["4000002760003184"], "client_secret": intent.client_secret}
    url = f"{stripe_server.url}/v1/payment_intents/{intent.id}/confirm"
    confirmed = requests.post(url, data=confirm, headers=PUBLISHABLE, timeout=5)
    assert confirmed.json()["status"] == "requires_action"
    answer = authenticate(stripe_server, intent.id, intent.client_secret, passed)
    assert answer.json()["status"] == status
    assert event_types(stripe_server)[-1] == event


def test_3d_secure_needs_the_client_secret(intents: Any, stripe_server: Fake) -> None:
    intent = intents.create(TOP_UP)
    assert authenticate(stripe_server, intent.id, "pi_x_secret_y", "true").status_code == 404
