"""Scenario 1 through the gateway: reserve a seat and pay for it. tests/concurrency does this under contention."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.support.concurrency import outcomes
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

SEATS_OF_THE_SEED = "5ea70001-0000-0000-0000-0000000000"


def list_charges(system: TestSystem, user_id: str) -> list[Decimal]:
    """List the amounts that were charged to a user."""
    sql = "SELECT amount FROM credit_entries WHERE user_id = %s AND kind = 'DEDUCT'"
    return [row["amount"] for row in system.rows("users_db", sql, user_id)]


@pytest.mark.claim(
    "reserve/post-reserve",
    "reserve/locks-and-holds-seat",
    "reserve/returns-order-id",
    "pay/post-pay",
    "pay/deducts-price",
    "pay/confirms-order",
    "pay/sells-seat",
    "pay/returns-qr",
    "testing/end-to-end",
)
def test_a_seat_is_reserved_and_paid_for(system: TestSystem) -> None:
    buyer, seat = system.person("500.00"), system.seat()
    held = buyer.reserve(seat).must(200)
    assert (held["status"], held["seat_id"], held["otp_required"]) == ("HELD", seat, False)
    assert (system.seat_status(seat), system.order_status(held["order_id"])) == ("HELD", "PENDING")
    assert buyer.balance() == 500
    paid = buyer.pay(held["order_id"]).must(200)
    assert (paid["status"], paid["credits_charged"]) == ("CONFIRMED", held["price"])
    assert paid["remaining_balance"] == 500 - held["price"] == buyer.balance()
    row = system.seat_row(seat)
    assert (row["status"], row["price_paid"], str(row["owner_user_id"])) == ("SOLD", held["price"], buyer.user_id)
    assert buyer.order(held["order_id"]).must()["status"] == "CONFIRMED"


@pytest.mark.claim("schema/orders.credits_charged", "schema/events.pricing_tiers")
@pytest.mark.parametrize(("number", "price"), [(24, 350), (26, 200), (99, 120)])
def test_the_price_is_that_of_the_seats_category(system: TestSystem, number: int, price: int) -> None:
    held = system.person().reserve(f"{SEATS_OF_THE_SEED}{number:02d}").must(200)
    assert held["price"] == price


def test_a_repeated_pay_gets_the_first_answer_and_charges_once(system: TestSystem) -> None:
    buyer = system.person()
    _, order_id = system.hold_seat(buyer)
    first, again = buyer.pay(order_id).must(200), buyer.pay(order_id).must(200)
    fields = ("order_id", "seat_id", "status", "credits_charged", "remaining_balance")
    assert [first[name] for name in fields] == [again[name] for name in fields]
    assert len(list_charges(system, buyer.user_id)) == 1


@pytest.mark.claim("pay/keeps-hold-without-credits", "pay/deducts-price", "protocols/webhook-adds-credits")
def test_a_buyer_without_credits_keeps_the_hold_and_tops_up(system: TestSystem) -> None:
    buyer = system.person("1.00")
    seat, order_id = system.hold_seat(buyer)
    assert outcomes([buyer.pay(order_id)]) == {"402 INSUFFICIENT_CREDITS": 1}
    assert (system.seat_status(seat), system.order_status(order_id)) == ("HELD", "PENDING")
    intent = buyer.top_up(400).must(200)
    system.pay_by_card(intent["payment_intent_id"])
    system.wait_until("the top-up is credited", lambda: buyer.balance() == 401)
    assert buyer.pay(order_id).must(200)["status"] == "CONFIRMED"


def test_a_second_reserve_by_the_holder_names_their_order(system: TestSystem) -> None:
    buyer = system.person()
    seat, order_id = system.hold_seat(buyer)
    again = buyer.reserve(seat)
    assert (again.status, again.error_code) == (409, "SEAT_UNAVAILABLE")
    assert again.envelope["details"]["order_id"] == order_id
    assert "details" not in system.person().reserve(seat).envelope


def test_sold_past_and_unknown_seats_have_their_error_codes(system: TestSystem) -> None:
    buyer = system.person()
    sold = buyer.reserve(system.insert_ticket(buyer))
    past = buyer.reserve("5ea70003-0000-0000-0000-000000000001")
    unknown = buyer.reserve("5ea70009-0000-0000-0000-000000000001")
    assert outcomes([sold, past, unknown]) == {
        "409 SEAT_ALREADY_SOLD": 1,
        "410 EVENT_ENDED": 1,
        "404 SEAT_NOT_FOUND": 1,
    }
    assert system.seat_status("5ea70003-0000-0000-0000-000000000001") == "AVAILABLE"


def test_a_stranger_neither_pays_nor_sees_the_order(system: TestSystem) -> None:
    buyer, stranger = system.person(), system.person()
    _, order_id = system.hold_seat(buyer)
    assert outcomes([stranger.pay(order_id), stranger.order(order_id)]) == {"403 FORBIDDEN": 2}
    nothing = "00000000-0000-4000-8000-000000000000"
    assert outcomes([buyer.pay(nothing), buyer.order(nothing)]) == {"404 ORDER_NOT_FOUND": 2}
    assert list_charges(system, stranger.user_id) == list_charges(system, buyer.user_id) == []
    assert buyer.pay(order_id).status == 200
