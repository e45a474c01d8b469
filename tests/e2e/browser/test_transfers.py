"""Two customers transfer a ticket, each in a browser. One of them disputes it, and staff decide."""

from __future__ import annotations

import pytest

from tests.e2e.browser.visitor import Visitor
from tests.support.browser import DESKTOP
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]


def offer(seller: Visitor, seat: str, price: str) -> str:
    """Open the sale of a ticket, set a price and return the link for the buyer."""
    seller.open_ticket(seat)
    seller.see("Sell this ticket").click()
    seller.page.get_by_label("Price in credits").fill(price)
    return seller.page.get_by_label("Link for the buyer").input_value()


@pytest.mark.claim("layers/client-buys-tickets")
def test_ticket_changes_its_owner_when_both_have_entered_their_codes(system: TestSystem, visit) -> None:
    (first, second), staff = system.people(2), system.staff()
    seat = system.insert_ticket(first)
    seller, buyer = visit(first), visit(second)
    buyer.page.goto(offer(seller, seat, "150"))
    buyer.click("Request the ticket")
    seller.see("A buyer requested this ticket")
    seller.follow("Open the transfer")
    seller.enter_code(first)
    seller.click("Confirm the sale")
    seller.see("Waiting for the code of the buyer")
    buyer.enter_code(second)
    buyer.click("Confirm the purchase")
    for visitor in (seller, buyer):
        visitor.see("Completed")
    assert (first.balance(), second.balance()) == (1150, 850)
    seller.see("Your credits: 1,150.00")
    assert not seller.page.get_by_role("button", name="Dispute").count(), "only the buyer can dispute"

    buyer.click("Dispute")
    buyer.page.get_by_label("Reason").fill("Not the seat that was promised")
    buyer.click("Start the dispute")
    for visitor in (seller, buyer):
        visitor.see("Staff decide about this dispute")

    support = visit(staff, DESKTOP)
    support.open("support")
    dispute = support.page.get_by_role("article").filter(has_text="Not the seat that was promised")
    dispute.get_by_role("button", name="Reverse…").click()
    support.see("The seller owns the ticket again")
    support.page.get_by_role("dialog").get_by_role("button", name="Reverse", exact=True).click()
    for visitor in (seller, buyer):
        visitor.see("Staff reversed this transfer")
    assert (first.balance(), second.balance()) == (1000, 1000)
    for visitor in (seller, buyer):
        visitor.see("Your credits: 1,000.00")


def test_seller_offers_to_a_member_and_cancels(system: TestSystem, visit) -> None:
    (first, second), seat = system.people(2), ""
    seat = system.insert_ticket(first)
    seller = visit(first)
    offer(seller, seat, "99.50")
    number = seller.page.get_by_label("Member number of the buyer")
    number.fill(second.user_id[:8])
    seller.click("Offer the ticket")
    assert "number is not complete" in number.evaluate("field => field.validationMessage")
    number.fill(second.user_id)
    seller.click("Offer the ticket")
    seller.see("99.50 credits")
    seller.click("Cancel the transfer")
    seller.page.get_by_role("dialog").get_by_role("button", name="Cancel the transfer").click()
    seller.see("This transfer ended")
    assert str(system.seat_row(seat)["owner_user_id"]) == first.user_id


def test_refusal_of_the_api_is_shown(system: TestSystem, visit) -> None:
    person = system.person()
    seller = visit(person)
    offer(seller, system.insert_ticket(person), "10")
    seller.page.get_by_label("Member number of the buyer").fill(person.user_id)
    seller.click("Offer the ticket")
    assert seller.read_alert() == "Seller and buyer are the same person. Name another buyer."


def test_support_refunds_an_order_after_it_showed_the_consequences(system: TestSystem, visit) -> None:
    buyer, staff = system.person(), system.staff()
    seat, order_id = system.buy_seat(buyer)
    support = visit(staff, DESKTOP)
    support.open("support")
    support.page.get_by_label("Number of an order or a transfer").fill(order_id)
    support.click("Find")
    support.click("Refund…")
    support.see("credits back")
    assert system.order_status(order_id) == "CONFIRMED", "nothing happens before the second click"
    support.page.get_by_role("dialog").get_by_role("button", name="Refund", exact=True).click()
    support.see("Refunded")
    assert (system.order_status(order_id), system.seat_status(seat)) == ("REFUNDED", "AVAILABLE")
