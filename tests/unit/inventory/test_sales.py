"""UpdateOwner and CancelSale over gRPC, and the tickets that a user owns."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from services.chassis.errors import Unknown
from tests.support.databases import Databases
from tests.unit.inventory.inventory_service import InventoryService, a_key, an_id, refused

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def inventory(databases: Databases) -> Iterator[InventoryService]:
    service = InventoryService(databases)
    yield service
    service.close()


@pytest.mark.claim("schema/seats.owner_user_id", "transfer/changes-all-or-nothing")
def test_new_owner_has_the_ticket_under_the_same_sale(inventory):
    seat_id, order_id, seller = inventory.sold_seat()
    buyer, key = an_id(), a_key()
    sale = inventory.update_owner(seat_id, order_id, seller, buyer, key)
    seat = inventory.ask("GetSeatOwner", seat_id=seat_id)
    assert (sale.owner_user_id, sale.order_id) == (buyer, order_id)
    assert (seat.owner_user_id, seat.order_id, seat.status, seat.price_paid) == (buyer, order_id, "SOLD", "350.00")
    assert inventory.update_owner(seat_id, order_id, seller, buyer, key) == sale


def test_update_owner_of_another_sale_is_refused(inventory):
    seat_id, _, seller = inventory.sold_seat()
    with refused("SEAT_UNAVAILABLE"):
        inventory.update_owner(seat_id, an_id(), seller, an_id())
    assert inventory.seat(seat_id).owner_user_id == seller


@pytest.mark.claim("transfer/needs-seller-ownership")
def test_update_owner_from_somebody_who_does_not_own_it_is_refused(inventory):
    seat_id, order_id, seller = inventory.sold_seat()
    with refused("NOT_SEAT_OWNER"):
        inventory.update_owner(seat_id, order_id, an_id(), an_id())
    assert inventory.seat(seat_id).owner_user_id == seller


def test_update_owner_after_its_key_was_settled_void_is_refused(inventory):
    seat_id, order_id, seller = inventory.sold_seat()
    key = a_key()
    assert inventory.settle(key) is False
    with refused("STEP_VOIDED"):
        inventory.update_owner(seat_id, order_id, seller, an_id(), key)
    assert inventory.seat(seat_id).owner_user_id == seller


def test_settle_is_done_after_the_ticket_moved_on(inventory):
    seat_id, order_id, seller = inventory.sold_seat()
    key, buyer = a_key(), an_id()
    inventory.update_owner(seat_id, order_id, seller, buyer, key)
    inventory.update_owner(seat_id, order_id, buyer, an_id())
    assert inventory.settle(key) is True


def test_of_two_simultaneous_sales_by_one_owner_one_stands(inventory):
    seat_id, order_id, seller = inventory.sold_seat()
    buyers = [an_id(), an_id()]
    answers = inventory.all_at_the_row(
        seat_id, [partial(inventory.update_owner, seat_id, order_id, seller, buyer) for buyer in buyers]
    )
    assert answers.count("NOT_SEAT_OWNER") == 1
    assert inventory.seat(seat_id).owner_user_id in buyers


def test_of_a_swap_and_a_refund_at_once_one_happens(inventory):
    seat_id, order_id, seller = inventory.sold_seat()
    swap, refund = inventory.all_at_the_row(
        seat_id,
        [
            partial(inventory.update_owner, seat_id, order_id, seller, an_id()),
            partial(inventory.cancel_sale, seat_id, order_id, seller),
        ],
    )
    assert isinstance(swap, str) is not isinstance(refund, str)
    assert inventory.seat(seat_id).status == ("AVAILABLE" if isinstance(swap, str) else "SOLD")


def test_cancelled_sale_leaves_the_seat_free_and_its_hold_dead(inventory):
    seat_id, order_id, owner = inventory.sold_seat()
    key = a_key()
    assert inventory.cancel_sale(seat_id, order_id, owner, key).released
    seat = inventory.seat(seat_id)
    left = (seat.status, seat.owner_user_id, seat.order_id, seat.price_paid, seat.hold_id)
    assert left == ("AVAILABLE", "", "", "", "")
    with refused("STEP_VOIDED"):
        inventory.reserve(seat_id, owner, order_id)
    assert inventory.reserve(seat_id).seat_id == seat_id
    assert inventory.cancel_sale(seat_id, order_id, owner, key).released


@pytest.mark.parametrize("wrong", ["order", "owner"])
def test_cancel_of_a_sale_that_does_not_stand_is_refused(inventory, wrong):
    seat_id, order_id, owner = inventory.sold_seat()
    with refused("SEAT_UNAVAILABLE" if wrong == "order" else "NOT_SEAT_OWNER"):
        inventory.cancel_sale(
            seat_id, an_id() if wrong == "order" else order_id, an_id() if wrong == "owner" else owner
        )
    assert inventory.seat(seat_id).status == "SOLD"


def test_ticket_that_was_used_is_neither_moved_nor_cancelled(inventory):
    seat_id, order_id, owner = inventory.sold_seat()
    assert inventory.check_in(seat_id, order_id, owner).result == "SUCCESS"
    with refused("SEAT_UNAVAILABLE"):
        inventory.update_owner(seat_id, order_id, owner, an_id())
    with refused("SEAT_UNAVAILABLE"):
        inventory.cancel_sale(seat_id, order_id, owner)
    with refused("SEAT_ALREADY_SOLD"):
        inventory.reserve(seat_id)


def test_pivots_wait_for_the_row_and_give_up_as_unknown(inventory):
    seat_id, order_id, owner = inventory.sold_seat()
    with inventory.row_locked(seat_id):
        with pytest.raises(Unknown):
            inventory.update_owner(seat_id, order_id, owner, an_id())
        with pytest.raises(Unknown):
            inventory.cancel_sale(seat_id, order_id, owner)


def test_unknown_pivot_is_done_when_asked_again_under_its_key(inventory):
    seat_id, order_id, owner = inventory.sold_seat()
    key, buyer = a_key(), an_id()
    with inventory.row_locked(seat_id), pytest.raises(Unknown):
        inventory.update_owner(seat_id, order_id, owner, buyer, key)
    assert inventory.update_owner(seat_id, order_id, owner, buyer, key).owner_user_id == buyer


def test_owner_finds_the_tickets_that_changed_last_first(inventory):
    owner, seats = an_id(), []
    for _ in range(3):
        seat_id, hold_id = inventory.new_seat(), an_id()
        inventory.reserve(seat_id, owner, hold_id)
        inventory.confirm(seat_id, hold_id, owner)
        seats.append(seat_id)
    listed = inventory.ask("ListTickets", owner_user_id=owner).seats
    assert [seat.seat_id for seat in listed] == seats[::-1]
    assert inventory.ask("ListTickets", owner_user_id=an_id()).seats == []


def test_owner_of_a_seat_that_is_not_there_is_not_found(inventory):
    with refused("SEAT_NOT_FOUND"):
        inventory.ask("GetSeatOwner", seat_id=an_id())
