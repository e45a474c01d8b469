"""A customer tops up by card, with the stand-in for Stripe.js."""

from __future__ import annotations

import pytest

from tests.e2e.browser.visitor import Visitor
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]


def pay(visitor: Visitor, card: str) -> None:
    """Choose a test card and pay with it."""
    frame = visitor.page.frame_locator("iframe")
    frame.get_by_role("button", name=card).click()
    visitor.click("Pay 100.00")


def test_card_payment_becomes_credits(system: TestSystem, visit) -> None:
    person = system.person("0.00")
    visitor = visit(person)
    visitor.open("credits")
    visitor.click("Continue to the card")
    pay(visitor, "4000 0000 0000 9995")
    assert visitor.read_alert() == "Your card has insufficient funds."
    pay(visitor, "4000 0027 6000 3184")
    visitor.page.frame_locator("iframe").get_by_role("button", name="Approve").click()
    visitor.see("You have 100.00 credits now.")
    assert person.balance() == 100


def test_refused_3d_secure_adds_no_credits(system: TestSystem, visit) -> None:
    person = system.person("0.00")
    visitor = visit(person)
    visitor.open("credits")
    visitor.click("Continue to the card")
    pay(visitor, "4000 0027 6000 3184")
    visitor.page.frame_locator("iframe").get_by_role("button", name="Refuse").click()
    assert "unable to authenticate" in visitor.read_alert()
    assert person.balance() == 0
