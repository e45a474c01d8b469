"""UpdateOwner, CancelSale and ListTickets over gRPC."""

from __future__ import annotations

from functools import partial

import pytest

from services.chassis.errors import Unknown
from tests.support.service_settings import new_id, new_key
from tests.unit.inventory.inventory_service import expect_refusal

pytestmark = pytest.mark.unit


@pytest.mark.claim("schema/seats.owner_user_id", "transfer/changes-all-or-nothing")
def test_new_owner_has_the_ticket_of_the_same_sale(inventory):
    seat_id, order_id, seller = inventory.sold_seat()
    buyer, key = new_id(), new_key()
    sale = inventory.update_owner(seat_id, order_id, seller, buyer, key)
    seat = inventory.call("GetSeatOwner", seat_id=seat_id)
    assert (sale.owner_user_id, sale.order_id) == (buyer, order_id)
    assert (seat.owner_user_id, seat.order_id, seat.status, seat.price_paid) == (buyer, order_id, "SOLD", "350.00")
    assert inventory.update_owner(seat_id, order_id, seller, buyer, key) == sale


def test_update_owner_of_another_sale_is_refused(inventory):
    seat_id, _, seller = inventory.sold_seat()
    with expect_refusal("SEAT_UNAVAILABLE"):
        inventory.update_owner(seat_id, new_id(), seller, new_id())
    assert inventory.seat(seat_id).owner_user_id == seller


@pytest.mark.claim("transfer/needs-seller-ownership")
def test_update_owner_from_another_owner_is_refused(inventory):
    seat_id, order_id, seller = inventory.sold_seat()
    with expect_refusal("NOT_SEAT_OWNER"):
        inventory.update_owner(seat_id, order_id, new_id(), new_id())
    assert inventory.seat(seat_id).owner_user_id == seller


def test_update_owner_after_a_settle_is_refused(inventory):
    seat_id, order_id, seller = inventory.sold_seat()
    key = new_key()
    assert inventory.settle(key) is False
    with expect_refusal("STEP_VOIDED"):
        inventory.update_owner(seat_id, order_id, seller, new_id(), key)
    assert inventory.seat(seat_id).owner_user_id == seller


def test_one_of_two_concurrent_changes_of_owner_wins(inventory):
    seat_id, order_id, seller = inventory.sold_seat()
    buyers = [new_id(), new_id()]
    answers = inventory.run_at_locked_row(
        seat_id, [partial(inventory.update_owner, seat_id, order_id, seller, buyer) for buyer in buyers]
    )
    assert answers.count("NOT_SEAT_OWNER") == 1
    assert inventory.seat(seat_id).owner_user_id in buyers


def test_one_of_a_concurrent_transfer_and_cancellation_wins(inventory):
    seat_id, order_id, seller = inventory.sold_seat()
    transfer, cancellation = inventory.run_at_locked_row(
        seat_id,
        [
            partial(inventory.update_owner, seat_id, order_id, seller, new_id()),
            partial(inventory.cancel_sale, seat_id, order_id, seller),
        ],
    )
    assert isinstance(transfer, str) is not isinstance(cancellation, str)
    assert inventory.seat(seat_id).status == ("AVAILABLE" if isinstance(transfer, str) else "SOLD")


def test_cancelled_sale_frees_the_seat_and_voids_its_hold(inventory):
    seat_id, order_id, owner = inventory.sold_seat()
    key = new_key()
    assert inventory.cancel_sale(seat_id, order_id, owner, key).released
    seat = inventory.seat(seat_id)
    left = (seat.status, seat.owner_user_id, seat.order_id, seat.price_paid, seat.hold_id)
    assert left == ("AVAILABLE", "", "", "", "")
    with expect_refusal("STEP_VOIDED"):
        inventory.reserve(seat_id, owner, order_id)
    assert inventory.reserve(seat_id).seat_id == seat_id
    assert inventory.cancel_sale(seat_id, order_id, owner, key).released


@pytest.mark.parametrize("wrong", ["order", "owner"])
def test_cancel_of_another_sale_is_refused(inventory, wrong):
    seat_id, order_id, owner = inventory.sold_seat()
    with expect_refusal("SEAT_UNAVAILABLE" if wrong == "order" else "NOT_SEAT_OWNER"):
        inventory.cancel_sale(
            seat_id, new_id() if wrong == "order" else order_id, new_id() if wrong == "owner" else owner
        )
    assert inventory.seat(seat_id).status == "SOLD"


def test_used_ticket_can_be_neither_transferred_nor_cancelled(inventory):
    seat_id, order_id, owner = inventory.sold_seat()
    assert inventory.check_in(seat_id, order_id, owner).result == "SUCCESS"
    with expect_refusal("SEAT_UNAVAILABLE"):
        inventory.update_owner(seat_id, order_id, owner, new_id())
    with expect_refusal("SEAT_UNAVAILABLE"):
        inventory.cancel_sale(seat_id, order_id, owner)
    with expect_refusal("SEAT_ALREADY_SOLD"):
        inventory.reserve(seat_id)


def test_pivot_on_a_locked_row_is_unknown_and_its_retry_succeeds(inventory, impatient):
    seat_id, order_id, owner = inventory.sold_seat()
    key, buyer = new_key(), new_id()
    with inventory.lock_row(seat_id):
        with pytest.raises(Unknown):
            impatient.cancel_sale(seat_id, order_id, owner)
        with pytest.raises(Unknown):
            impatient.update_owner(seat_id, order_id, owner, buyer, key)
    assert inventory.update_owner(seat_id, order_id, owner, buyer, key).owner_user_id == buyer


def test_owner_gets_tickets_with_the_last_changed_first(inventory):
    owner, seats = new_id(), []
    for _ in range(3):
        seat_id, hold_id = inventory.new_seat(), new_id()
        inventory.reserve(seat_id, owner, hold_id)
        inventory.confirm(seat_id, hold_id, owner)
        seats.append(seat_id)
    listed = inventory.call("ListTickets", owner_user_id=owner).seats
    assert [seat.seat_id for seat in listed] == seats[::-1]
    assert inventory.call("ListTickets", owner_user_id=new_id()).seats == []
    stranger = inventory.call("ListTickets", owner_user_id=new_id(), sold_seat_ids=[*seats[:2], new_id()])
    assert ({seat.seat_id for seat in stranger.sold}, list(stranger.seats)) == (set(seats[:2]), [])


def test_owner_of_an_unknown_seat_is_not_found(inventory):
    with expect_refusal("SEAT_NOT_FOUND"):
        inventory.call("GetSeatOwner", seat_id=new_id())
