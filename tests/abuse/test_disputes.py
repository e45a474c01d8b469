"""Parties dispute transfers of used tickets, old transfers, and the same transfer again, and resell above a limit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.runtime.ports import HOST
from tests.abuse.honest_buyers import HonestBuyers
from tests.concurrency.patched_service import run_patched
from tests.support.concurrency import outcomes
from tests.support.people import Person
from tests.support.running_stack import native_only
from tests.support.system import TestSystem

pytestmark = [pytest.mark.abuse, pytest.mark.usefixtures("invariants")]

AMOUNT = 120


def sell_ticket(system: TestSystem, seller_credits: str = "1000.00") -> tuple[Person, Person, str, str]:
    """Transfer a ticket. Returns the seller, the buyer, the seat and the transfer."""
    seller, buyer = system.person(seller_credits), system.person()
    seat = system.insert_ticket(seller)
    return seller, buyer, seat, system.complete_transfer(seller, buyer, seat, AMOUNT)


def dispute(party: Person, transfer_id: str) -> dict[str, int]:
    """Dispute a transfer and count the outcome."""
    return outcomes([party.transfer("dispute", transfer_id, reason="give it back")])


def test_dispute_after_check_in_freezes_nothing(system: TestSystem, honest_buyers: Callable[[], HonestBuyers]) -> None:
    seller, buyer, seat, transfer_id = sell_ticket(system)
    with honest_buyers():
        admitted = system.staff().scan(buyer.qr(seat).must(200)["qr_payload"], "HALL-B").must(200)
        assert admitted["result"] == "SUCCESS"
        for party in (buyer, seller):
            assert dispute(party, transfer_id) == {"409 DISPUTE_CLOSED": 1}
    assert system.credits(seller) == (1000 + AMOUNT, 0)


def test_dispute_after_the_last_day_freezes_nothing(system: TestSystem) -> None:
    seller, buyer, _, transfer_id = sell_ticket(system)
    age = "UPDATE transfers SET completed_at = app_now() - interval '30 days' WHERE transfer_id = %s"
    system.rows("orders_db", age, transfer_id)
    refused = buyer.transfer("dispute", transfer_id, reason="after a month")
    assert refused.error_code == "DISPUTE_CLOSED"
    assert "30 days" in refused.envelope["message"]
    assert system.credits(seller) == (1000 + AMOUNT, 0)


def test_dismissed_transfer_is_disputed_once_and_for_its_amount(system: TestSystem) -> None:
    seller, buyer, _, transfer_id = sell_ticket(system)
    assert buyer.transfer("dispute", transfer_id, reason="I want both").must(200)["credits_frozen"] == AMOUNT
    assert system.credits(seller) == (1000, AMOUNT), "the other credits of the seller stay available"
    system.staff().transfer("dismiss", transfer_id).must(200)
    for party in (buyer, seller):
        assert dispute(party, transfer_id) == {"409 DISPUTE_CLOSED": 1}
    assert system.credits(seller) == (1000 + AMOUNT, 0)


@native_only("a second orchestrator runs next to the stack")
def test_resale_price_can_have_a_limit(system: TestSystem) -> None:
    """A ticket costs 100 credits, so 110 is the limit at a multiple of 1.1."""
    seller, buyer = system.people(2)
    seat = system.insert_ticket(seller)
    with run_patched(system.stack, "orchestrator-service", "", {"RESALE_MAX_MULTIPLE": "1.1"}) as ports:
        scalper = seller.at(f"http://{HOST}:{ports['PORT']}")
        refused = scalper.initiate(seat, seller.user_id, buyer.user_id, 110.01)
        assert (refused.status, refused.error_code) == (409, "RESALE_PRICE_TOO_HIGH")
        assert refused.envelope["details"] == {"max_credits": 110}
        assert scalper.initiate(seat, seller.user_id, buyer.user_id, 110).status == 201
