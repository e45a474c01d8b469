"""Stripe's webhook: only a signed event is accepted, and each payment is credited once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
import stripe
from werkzeug.test import TestResponse

from tests.support.concurrency import run_concurrently
from tests.unit.user.user_app import WEBHOOK_SECRET, UserApp, error_code, status_codes

pytestmark = pytest.mark.unit


def intent(user: UUID | str, cents: Any = 2550, **changes: Any) -> dict[str, Any]:
    """Return the object of a payment_intent.succeeded event."""
    return {
        "id": f"pi_{uuid4().hex}", "object": "payment_intent", "amount": cents, "amount_received": cents,
        "currency": "sgd", "status": "succeeded", "metadata": {"user_id": str(user), "topup_key": "k"},
    } | changes  # fmt: skip


def event(about: Any, kind: str = "payment_intent.succeeded", **changes: Any) -> dict[str, Any]:
    fields = {"id": f"evt_{uuid4().hex}", "object": "event", "type": kind, "created": 1, "data": {"object": about}}
    return fields | changes


def deliver(users: UserApp, sent: Any, *, secret: str = WEBHOOK_SECRET, age: float = 0) -> TestResponse:
    body = json.dumps(sent)
    signature = stripe.WebhookSignature.generate_signature_header(body, secret, int(time.time() - age))
    return users.call_public("POST", "/api/webhooks/stripe", body.encode(), **{"Stripe-Signature": signature})


@pytest.mark.claim("stripe/webhook-reports-payment", "protocols/webhook-adds-credits")
def test_payment_credits_the_user_in_its_metadata(users: UserApp) -> None:
    user = users.new_user("1.00")
    answer = deliver(users, event(intent(user, 2550)))
    assert (answer.status_code, answer.get_json()["data"]) == (200, {"received": True})
    assert users.balance(user) == Decimal("26.50")


def test_received_amount_is_credited(users: UserApp) -> None:
    user = users.new_user("0.00")
    deliver(users, event(intent(user, 2550, amount=999999)))
    assert users.balance(user) == Decimal("25.50")


@pytest.mark.parametrize(
    "run", [run_concurrently, lambda calls: [call() for call in calls]], ids=["concurrent", "repeated"]
)
def test_copies_of_an_event_credit_once(users: UserApp, run: Callable[..., list[Any]]) -> None:
    user = users.new_user("0.00")
    sent = event(intent(user, 1000))
    assert status_codes(run([lambda: deliver(users, sent)] * 5)) == [200] * 5
    assert users.balance(user) == 10


def test_concurrent_events_of_one_payment_credit_once(users: UserApp) -> None:
    user = users.new_user("0.00")
    about = intent(user, 1000)
    assert status_codes(run_concurrently([lambda: deliver(users, event(about))] * 5)) == [200] * 5
    assert users.balance(user) == 10


def test_one_event_id_with_two_payments_credits_once(users: UserApp) -> None:
    user = users.new_user("0.00")
    for _ in range(2):
        assert deliver(users, event(intent(user, 1000), id="evt_once_" + str(user))).status_code == 200
    assert users.balance(user) == 10


def test_concurrent_payments_are_all_credited(users: UserApp) -> None:
    user = users.new_user("0.00")
    run_concurrently([partial(deliver, users, event(intent(user, cents))) for cents in (1000, 2000, 3000)])
    assert users.balance(user) == 60


@pytest.mark.parametrize(
    "kind", ["payment_intent.created", "payment_intent.payment_failed", "payment_intent.canceled", "charge.succeeded",
             "payment.succeeded", "customer.created", "x"],
)  # fmt: skip
def test_other_event_is_acknowledged_and_credits_nothing(users: UserApp, kind: str) -> None:
    user = users.new_user("0.00")
    assert deliver(users, event(intent(user), kind)).status_code == 200
    assert users.balance(user) == 0


def test_events_out_of_order_credit_once(users: UserApp) -> None:
    user = users.new_user("0.00")
    about = intent(user, 1000)
    for kind in ("payment_intent.succeeded", "payment_intent.created", "payment_intent.payment_failed"):
        assert deliver(users, event(about, kind)).status_code == 200
    assert users.balance(user) == 10


@pytest.mark.parametrize(
    "foreign",
    [
        {"currency": "usd"}, {"amount_received": 0}, {"amount_received": -5}, {"amount_received": "5"},
        {"amount_received": None}, {"metadata": {}}, {"metadata": None}, {"metadata": {"user_id": "u-1"}},
        {"metadata": {"user_id": "00000000-0000-0000-0000-00000000000f"}}, {"id": None},
        {"id": "pi_\0"}, {"id": "pi_\ud800"},
    ],
    ids=str,
)  # fmt: skip
def test_foreign_payment_is_acknowledged_and_credits_nothing(users: UserApp, foreign: dict[str, Any]) -> None:
    user = users.new_user("0.00")
    assert deliver(users, event(intent(user) | foreign)).status_code == 200
    assert users.balance(user) == 0


@pytest.mark.parametrize("data", [{}, {"object": None}, None, [], "x"], ids=str)
def test_event_without_an_object_is_acknowledged(users: UserApp, data: Any) -> None:
    assert deliver(users, event({}, data=data)).status_code == 200


def test_redelivery_credits_a_user_added_later(users: UserApp) -> None:
    """A payment that could not be credited leaves no record, so an operator can redeliver its event."""
    user = uuid4()
    sent = event(intent(user, 1000))
    assert deliver(users, sent).status_code == 200
    users.new_user("0.00", user)
    assert deliver(users, sent).status_code == 200
    assert users.balance(user) == 10


@pytest.mark.claim("stripe/checks-signature-first")
def test_forged_event_is_refused(users: UserApp) -> None:
    user = users.new_user("0.00")
    answer = deliver(users, event(intent(user)), secret="whsec_forged")
    assert (answer.status_code, error_code(answer)) == (400, "VALIDATION_ERROR")
    assert users.balance(user) == 0


@pytest.mark.parametrize(("refused", "accepted"), [(301, 270), (-330, -290)], ids=["older", "ahead"])
def test_event_outside_the_tolerance_is_refused(users: UserApp, refused: int, accepted: int) -> None:
    """Stripe's clock may differ from this host's by the tolerance, and no more."""
    user = users.new_user("0.00")
    sent = event(intent(user, 1000))
    assert deliver(users, sent, age=refused).status_code == 400
    assert users.balance(user) == 0
    assert deliver(users, sent, age=accepted).status_code == 200
    assert users.balance(user) == 10


def test_only_the_signed_time_of_an_event_counts(users: UserApp) -> None:
    user = users.new_user("0.00")
    body = json.dumps(event(intent(user, 1000)))
    ahead, now = int(time.time()) + 3600, int(time.time())
    signed = stripe.WebhookSignature.generate_signature_header(body, WEBHOOK_SECRET, ahead)
    answer = users.call_public(
        "POST", "/api/webhooks/stripe", body.encode(), **{"Stripe-Signature": f"{signed},t={now}"}
    )
    assert (answer.status_code, users.balance(user)) == (400, 0)


@pytest.mark.claim("stripe/checks-signature-first")
def test_changed_body_is_refused(users: UserApp) -> None:
    user = users.new_user("0.00")
    body = json.dumps(event(intent(user, 100)))
    signature = stripe.WebhookSignature.generate_signature_header(body, WEBHOOK_SECRET)
    for changed in (body.replace(": 100", ": 999999"), json.dumps(json.loads(body), indent=1), body + " "):
        answer = users.call_public("POST", "/api/webhooks/stripe", changed.encode(), **{"Stripe-Signature": signature})
        assert answer.status_code == 400
    assert users.balance(user) == 0


@pytest.mark.parametrize(
    "signature", [None, "", "x", "t=,v1=", "t=1,v1=x", "v1=abc", "t=x,v1=x", "t=99999999999,v0=x", "t=1,v1=é", "=", ","]
)
def test_invalid_signature_is_refused(users: UserApp, signature: str | None) -> None:
    headers = {} if signature is None else {"Stripe-Signature": signature}
    body = json.dumps(event(intent(users.new_user("0.00")))).encode()
    answer = users.call_public("POST", "/api/webhooks/stripe", body, **headers)
    assert (answer.status_code, error_code(answer)) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '"x"', "7", '{"object":"v2.core.event"}'])
def test_signed_body_that_is_no_event_is_refused(users: UserApp, body: str) -> None:
    signature = stripe.WebhookSignature.generate_signature_header(body, WEBHOOK_SECRET)
    answer = users.call_public("POST", "/api/webhooks/stripe", body.encode(), **{"Stripe-Signature": signature})
    assert answer.status_code == 400


def test_body_that_is_not_utf8_is_refused(users: UserApp) -> None:
    answer = users.call_public("POST", "/api/webhooks/stripe", b"\xff\xfe", **{"Stripe-Signature": "t=1,v1=x"})
    assert answer.status_code == 400
