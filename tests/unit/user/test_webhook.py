"""Stripe's word that money came: believed only when signed, credited only once."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
import stripe
from werkzeug.test import TestResponse

from tests.support.concurrency import run_concurrently
from tests.unit.user.user_app import WEBHOOK_SECRET, UserApp, codes, refusal

pytestmark = pytest.mark.unit


def paid(user: UUID | str, cents: Any = 2550, **changes: Any) -> dict[str, Any]:
    """The object of a payment_intent.succeeded event."""
    return {
        "id": f"pi_{uuid4().hex}", "object": "payment_intent", "amount": cents, "amount_received": cents,
        "currency": "sgd", "status": "succeeded", "metadata": {"user_id": str(user), "topup_key": "k"},
    } | changes  # fmt: skip


def event(about: Any, kind: str = "payment_intent.succeeded", **changes: Any) -> dict[str, Any]:
    made = {"id": f"evt_{uuid4().hex}", "object": "event", "type": kind, "created": 1, "data": {"object": about}}
    return made | changes


def deliver(users: UserApp, told: Any, *, secret: str = WEBHOOK_SECRET, age: float = 0) -> TestResponse:
    body = json.dumps(told)
    signature = stripe.WebhookSignature.generate_signature_header(body, secret, int(time.time() - age))
    return users.public("POST", "/api/webhooks/stripe", body.encode(), **{"Stripe-Signature": signature})


@pytest.mark.claim("stripe/webhook-reports-payment", "protocols/webhook-adds-credits")
def test_a_payment_is_credited_to_the_user_in_its_metadata(users: UserApp) -> None:
    user = users.new_user("1.00")
    answer = deliver(users, event(paid(user, 2550)))
    assert (answer.status_code, answer.get_json()["data"]) == (200, {"received": True})
    assert users.balance(user) == Decimal("26.50")


def test_what_was_received_counts_not_what_was_asked(users: UserApp) -> None:
    user = users.new_user("0.00")
    deliver(users, event(paid(user, 2550, amount=999999)))
    assert users.balance(user) == Decimal("25.50")


def test_the_same_event_five_times_at_once_credits_once(users: UserApp) -> None:
    user = users.new_user("0.00")
    told = event(paid(user, 1000))
    assert codes(run_concurrently([lambda: deliver(users, told)] * 5)) == [200] * 5
    assert users.balance(user) == 10


def test_the_same_event_much_later_credits_nothing(users: UserApp) -> None:
    user = users.new_user("0.00")
    told = event(paid(user, 1000))
    assert codes(deliver(users, told) for _ in range(3)) == [200] * 3
    assert users.balance(user) == 10


def test_two_events_of_one_payment_at_once_credit_once(users: UserApp) -> None:
    user = users.new_user("0.00")
    about = paid(user, 1000)
    assert codes(run_concurrently([lambda: deliver(users, event(about))] * 5)) == [200] * 5
    assert users.balance(user) == 10


def test_one_event_id_with_two_payments_credits_once(users: UserApp) -> None:
    user = users.new_user("0.00")
    for _ in range(2):
        assert deliver(users, event(paid(user, 1000), id="evt_once_" + str(user))).status_code == 200
    assert users.balance(user) == 10


def test_two_payments_are_both_credited(users: UserApp) -> None:
    user = users.new_user("0.00")
    run_concurrently([partial(deliver, users, event(paid(user, cents))) for cents in (1000, 2000, 3000)])
    assert users.balance(user) == 60


@pytest.mark.parametrize(
    "kind", ["payment_intent.created", "payment_intent.payment_failed", "payment_intent.canceled", "charge.succeeded",
             "payment.succeeded", "customer.created", "x"],
)  # fmt: skip
def test_any_other_event_is_acknowledged_and_credits_nothing(users: UserApp, kind: str) -> None:
    user = users.new_user("0.00")
    assert deliver(users, event(paid(user), kind)).status_code == 200
    assert users.balance(user) == 0


def test_events_out_of_order_credit_once(users: UserApp) -> None:
    user = users.new_user("0.00")
    about = paid(user, 1000)
    for kind in ("payment_intent.succeeded", "payment_intent.created", "payment_intent.payment_failed"):
        assert deliver(users, event(about, kind)).status_code == 200
    assert users.balance(user) == 10


@pytest.mark.parametrize(
    "foreign",
    [
        {"currency": "usd"}, {"amount_received": 0}, {"amount_received": -5}, {"amount_received": "5"},
        {"amount_received": None}, {"metadata": {}}, {"metadata": None}, {"metadata": {"user_id": "u-1"}},
        {"metadata": {"user_id": "00000000-0000-0000-0000-00000000000f"}}, {"id": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_payment_that_is_not_ours_is_acknowledged_and_credits_nothing(
    users: UserApp, foreign: dict[str, Any]
) -> None:
    user = users.new_user("0.00")
    assert deliver(users, event(paid(user) | foreign)).status_code == 200
    assert users.balance(user) == 0


@pytest.mark.parametrize("told", [{}, {"object": None}, None, [], "x"], ids=str)
def test_an_event_about_nothing_is_acknowledged(users: UserApp, told: Any) -> None:
    assert deliver(users, event({}, data=told)).status_code == 200


def test_a_payment_for_a_user_that_comes_later_can_still_be_credited(users: UserApp) -> None:
    """What could not be credited leaves no mark: sent again by hand, it counts."""
    user = uuid4()
    told = event(paid(user, 1000))
    assert deliver(users, told).status_code == 200
    users.new_user("0.00", user)
    assert deliver(users, told).status_code == 200
    assert users.balance(user) == 10


@pytest.mark.claim("stripe/checks-signature-first")
def test_a_forged_event_is_refused(users: UserApp) -> None:
    user = users.new_user("0.00")
    answer = deliver(users, event(paid(user)), secret="whsec_forged")
    assert (answer.status_code, refusal(answer)) == (400, "VALIDATION_ERROR")
    assert users.balance(user) == 0


def test_an_event_older_than_the_tolerance_is_refused(users: UserApp) -> None:
    user = users.new_user("0.00")
    told = event(paid(user, 1000))
    assert deliver(users, told, age=301).status_code == 400
    assert users.balance(user) == 0
    assert deliver(users, told, age=290).status_code == 200
    assert users.balance(user) == 10


@pytest.mark.claim("stripe/checks-signature-first")
def test_a_body_changed_on_the_way_is_refused(users: UserApp) -> None:
    user = users.new_user("0.00")
    body = json.dumps(event(paid(user, 100)))
    signature = stripe.WebhookSignature.generate_signature_header(body, WEBHOOK_SECRET)
    for changed in (body.replace(": 100", ": 999999"), json.dumps(json.loads(body), indent=1), body + " "):
        answer = users.public("POST", "/api/webhooks/stripe", changed.encode(), **{"Stripe-Signature": signature})
        assert answer.status_code == 400
    assert users.balance(user) == 0


@pytest.mark.parametrize(
    "signature", [None, "", "x", "t=,v1=", "t=1,v1=x", "v1=abc", "t=x,v1=x", "t=99999999999,v0=x", "t=1,v1=é", "=", ","]
)
def test_a_signature_that_is_none_is_refused(users: UserApp, signature: str | None) -> None:
    headers = {} if signature is None else {"Stripe-Signature": signature}
    body = json.dumps(event(paid(users.new_user("0.00")))).encode()
    answer = users.public("POST", "/api/webhooks/stripe", body, **headers)
    assert (answer.status_code, refusal(answer)) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '"x"', "7", '{"object":"v2.core.event"}'])
def test_a_signed_body_that_is_no_event_is_refused_or_ignored(users: UserApp, body: str) -> None:
    signature = stripe.WebhookSignature.generate_signature_header(body, WEBHOOK_SECRET)
    answer = users.public("POST", "/api/webhooks/stripe", body.encode(), **{"Stripe-Signature": signature})
    assert answer.status_code == 400


def test_a_body_that_is_not_utf8_is_refused(users: UserApp) -> None:
    answer = users.public("POST", "/api/webhooks/stripe", b"\xff\xfe", **{"Stripe-Signature": "t=1,v1=x"})
    assert answer.status_code == 400
