"""Disputes, and the decisions of staff: reverse, dismiss, refund."""

from __future__ import annotations

import pytest

from tests.e2e.test_transfers import make_parties, read_owner
from tests.support.concurrency import outcomes, run_concurrently
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

NOTHING = "00000000-0000-4000-8000-000000000000"


@pytest.mark.claim("dispute/freezes-credits")
@pytest.mark.parametrize("party", ["seller", "buyer"])
def test_a_dispute_freezes_what_the_seller_still_has(system: TestSystem, party: str) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id = system.complete_transfer(seller, buyer, seat, 120)
    disputing = seller if party == "seller" else buyer
    answer = disputing.transfer("dispute", transfer_id, reason="not what was promised").must(200)
    assert (answer["status"], answer["credits_frozen"]) == ("DISPUTED", 120)
    assert system.credits(seller) == (0, 120)
    shown = buyer.get("/api/transfers").must()[0]
    assert (shown["status"], shown["dispute_reason"]) == ("DISPUTED", "not what was promised")


def test_a_disputed_ticket_still_scans_but_cannot_be_sold(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    system.dispute_transfer(seller, buyer, seat)
    onward = buyer.initiate(seat, buyer.user_id, system.person().user_id, 10)
    assert outcomes([onward]) == {"409 TRANSFER_IN_PROGRESS": 1}
    assert system.staff().scan(buyer.qr(seat).must()["qr_payload"], "HALL-B").must()["result"] == "SUCCESS"


@pytest.mark.claim("reverse/returns-seat-and-credits")
def test_reverse_gives_ticket_and_credits_back(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id, staff = system.dispute_transfer(seller, buyer, seat, 120), system.staff()
    assert staff.transfer("reverse", transfer_id).must(200)["status"] == "REVERSED"
    assert read_owner(system, seat) == seller.user_id
    assert (system.credits(seller), system.credits(buyer)) == ((0, 0), (500, 0))
    assert staff.transfer("reverse", transfer_id).must(200)["status"] == "REVERSED", "a retry gets the same answer"
    assert outcomes([staff.transfer("dismiss", transfer_id)]) == {"409 TRANSFER_INVALID_STATE": 1}
    system.complete_transfer(seller, buyer, seat, 60)


def test_dismiss_keeps_the_transfer(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id, staff = system.dispute_transfer(seller, buyer, seat, 120), system.staff()
    assert staff.transfer("dismiss", transfer_id).must(200)["status"] == "COMPLETED"
    assert (read_owner(system, seat), system.credits(seller)) == (buyer.user_id, (120, 0))
    again = [party.transfer("dispute", transfer_id, reason="again") for party in (buyer, seller)]
    assert outcomes(again) == {"409 DISPUTE_CLOSED": 2}
    assert system.credits(seller) == (120, 0)


@pytest.mark.claim("reverse/returns-seat-and-credits")
def test_reverse_waits_until_the_seller_has_the_credits(system: TestSystem) -> None:
    """A seller who spent the credits makes the reverse fail, and the buyer keeps the ticket until then."""
    seller, buyer, seat = make_parties(system, seller="250.00")
    transfer_id, staff = system.complete_transfer(seller, buyer, seat, 120), system.staff()
    other = system.person("0.00")
    system.complete_transfer(other, seller, system.insert_ticket(other), 300)
    left = 250 + 120 - 300
    assert buyer.transfer("dispute", transfer_id, reason="spent").must(200)["credits_frozen"] == left
    assert outcomes([staff.transfer("reverse", transfer_id)]) == {"409 CREDITS_UNAVAILABLE": 1}
    assert (read_owner(system, seat), system.credits(seller)) == (buyer.user_id, (0, left))
    system.complete_transfer(seller, system.person("200.00"), system.insert_ticket(seller), 120)
    assert staff.transfer("reverse", transfer_id).must(200)["status"] == "REVERSED"
    assert read_owner(system, seat) == seller.user_id


def test_a_used_ticket_cannot_be_reversed(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id = system.dispute_transfer(seller, buyer, seat, 120)
    assert system.staff().scan(buyer.qr(seat).must()["qr_payload"], "HALL-B").must()["result"] == "SUCCESS"
    assert outcomes([system.staff().transfer("reverse", transfer_id)]) == {"409 SEAT_UNAVAILABLE": 1}
    assert (system.credits(seller), system.credits(buyer)) == ((0, 120), (380, 0)), "the credits stay frozen"


def test_only_the_latest_completed_transfer_can_be_disputed(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    pending = system.start_transfer(seller, buyer, seat)
    assert outcomes([buyer.transfer("dispute", pending, reason="x")]) == {"409 TRANSFER_INVALID_STATE": 1}
    seller.transfer("cancel", pending).must()
    first, third = system.complete_transfer(seller, buyer, seat), system.person()
    system.complete_transfer(buyer, third, seat, 50)
    assert outcomes([seller.transfer("dispute", first, reason="x")]) == {"409 TRANSFER_INVALID_STATE": 1}
    staff = system.staff()
    answers = [staff.transfer(verb, first) for verb in ("reverse", "dismiss")]
    assert outcomes(answers) == {"409 TRANSFER_INVALID_STATE": 2}


@pytest.mark.claim("dispute/freezes-credits")
def test_a_dispute_fails_a_pending_onward_transfer(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    first, third = system.complete_transfer(seller, buyer, seat), system.person()
    onward = system.start_transfer(buyer, third, seat, 50)
    seller.transfer("dispute", first, reason="second thoughts").must(200)
    assert system.transfer_row(onward)["status"] == "FAILED"


@pytest.mark.claim("schema/orders.status")
def test_a_refund_returns_the_price_and_frees_the_seat_once(system: TestSystem) -> None:
    buyer, staff = system.person("1000.00"), system.staff()
    seat, order_id = system.buy_seat(buyer)
    assert buyer.balance() < 1000
    answers = run_concurrently([lambda: staff.refund(order_id)] * 5)
    assert outcomes(answers) == {"200": 5}
    assert answers[0].data == {"order_id": order_id, "status": "REFUNDED"}
    assert (buyer.balance(), system.seat_status(seat), system.order_status(order_id)) == (1000, "AVAILABLE", "REFUNDED")
    system.buy_seat(system.person(), seat)
    assert staff.refund(order_id).must(200)["status"] == "REFUNDED", "a retry gets the same answer and changes nothing"
    assert (buyer.balance(), system.seat_status(seat)) == (1000, "SOLD")


def test_unrefundable_orders_are_refused(system: TestSystem) -> None:
    staff, buyer, other = system.staff(), system.person("5000.00"), system.person("500.00")
    _, pending = system.hold_seat(buyer)
    moved, moved_order = system.buy_seat(buyer)
    system.complete_transfer(buyer, other, moved, 10)
    opened, opened_order = system.buy_seat(buyer)
    system.start_transfer(buyer, other, opened, 10)
    used, used_order = system.buy_seat(buyer)
    assert staff.scan(buyer.qr(used).must()["qr_payload"], "HALL-B").must()["result"] == "SUCCESS"
    before = buyer.balance()
    answers = [staff.refund(order) for order in (pending, moved_order, opened_order, used_order)]
    assert outcomes(answers) == {"409 ORDER_NOT_REFUNDABLE": 4}
    assert outcomes([staff.refund(NOTHING)]) == {"404 ORDER_NOT_FOUND": 1}
    assert buyer.balance() == before
