"""Refunds and disputes that the control plane of the fake Stripe plays, received with the SDK."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.fakes_control import Fake
from tests.unit.fakes.stripe_client import TOP_UP, event_types, raw

pytestmark = pytest.mark.unit

PAID = ["payment_intent.created", "payment_intent.succeeded"]


@pytest.fixture
def paid(intents: Any) -> Any:
    """A payment of 50.00 SGD."""
    return intents.create(TOP_UP | {"confirm": True, "payment_method": "pm_card_visa"})


def read_charge(server: Fake, intent: Any) -> dict[str, Any]:
    found: dict[str, Any] = raw(server, f"/v1/charges/{intent.latest_charge}").json()
    return found


def test_refunds_add_up_in_the_charge(stripe_server: Fake, paid: Any) -> None:
    first = stripe_server.control(f"payment_intents/{paid.id}/refund", amount=1500)
    assert (first["status"], first["payment_intent"], first["amount"]) == ("succeeded", paid.id, 1500)
    charge = read_charge(stripe_server, paid)
    assert (charge["amount_refunded"], charge["refunded"], len(charge["refunds"]["data"])) == (1500, False, 1)
    stripe_server.control(f"payment_intents/{paid.id}/refund")
    charge = read_charge(stripe_server, paid)
    assert (charge["amount_refunded"], charge["refunded"]) == (5000, True)
    assert event_types(stripe_server) == PAID + ["refund.created", "charge.refunded"] * 2
    assert "amount must be" in stripe_server.get_refusal(f"payment_intents/{paid.id}/refund")


def test_failed_refund_leaves_the_charge(stripe_server: Fake, paid: Any) -> None:
    refund = stripe_server.control(f"payment_intents/{paid.id}/refund", amount=1500)
    assert stripe_server.control(f"refunds/{refund['id']}/fail")["status"] == "failed"
    assert read_charge(stripe_server, paid)["amount_refunded"] == 0
    assert event_types(stripe_server)[-2:] == ["refund.failed", "charge.refund.updated"]
    assert "failed before" in stripe_server.get_refusal(f"refunds/{refund['id']}/fail")


@pytest.mark.parametrize(
    ("status", "last"),
    [("won", ["charge.dispute.closed", "charge.dispute.funds_reinstated"]), ("lost", ["charge.dispute.closed"])],
)
def test_dispute_withdraws_the_funds_until_it_is_won(
    stripe_server: Fake, paid: Any, status: str, last: list[str]
) -> None:
    dispute = stripe_server.control(f"payment_intents/{paid.id}/dispute")
    assert (dispute["amount"], dispute["status"], dispute["payment_intent"]) == (5000, "needs_response", paid.id)
    assert read_charge(stripe_server, paid)["disputed"]
    assert stripe_server.control(f"disputes/{dispute['id']}/close", status=status)["status"] == status
    opened = ["charge.dispute.created", "charge.dispute.funds_withdrawn"]
    assert event_types(stripe_server) == PAID + opened + last
    assert "must be open" in stripe_server.get_refusal(f"disputes/{dispute['id']}/close", status="won")


def test_inquiry_withdraws_nothing(stripe_server: Fake, paid: Any) -> None:
    inquiry = stripe_server.control(f"payment_intents/{paid.id}/dispute", inquiry=True)
    assert inquiry["status"] == "warning_needs_response"
    stripe_server.control(f"disputes/{inquiry['id']}/close", status="warning_closed")
    assert event_types(stripe_server) == [*PAID, "charge.dispute.created", "charge.dispute.closed"]


def test_unpaid_intent_has_no_refund_and_no_dispute(intents: Any, stripe_server: Fake) -> None:
    made = intents.create(TOP_UP)
    for verb in ("refund", "dispute"):
        assert "not paid" in stripe_server.get_refusal(f"payment_intents/{made.id}/{verb}")
