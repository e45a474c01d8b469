"""One account tries to hold every seat of an event, to hold them again after a lapse, and to collect tickets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle

import pytest

from tests.abuse.addresses import from_address, new_addresses
from tests.abuse.honest_buyers import HonestBuyers
from tests.support import inserts
from tests.support.concurrency import outcomes, run_concurrently
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.abuse, pytest.mark.usefixtures("invariants")]

SEATS, MAX_HOLDS, MAX_TICKETS = 64, 6, 8


def reserve_all(attacker: Person, seats: list[str]) -> dict[str, int]:
    """Reserve all seats at the same moment from four addresses, and count the outcomes."""
    clients = cycle([from_address(attacker, address) for address in new_addresses(4)])
    return outcomes(run_concurrently([partial(next(clients).reserve, seat) for seat in seats]))


def lapse(system: TestSystem, attacker: Person) -> None:
    """Let the holds of the attacker expire, and wait until the sweeper has released them."""
    count = "SELECT count(*) AS n FROM seats WHERE held_by_user_id = %s"
    expire = "UPDATE seats SET held_until = app_now() - interval '3 seconds' WHERE held_by_user_id = %s"
    system.rows("seats_db", expire, attacker.user_id)
    system.wait_until("the seats are free", lambda: not system.rows("seats_db", count, attacker.user_id)[0]["n"])


def test_one_account_holds_few_seats_of_a_hall(system: TestSystem, honest_buyers: Callable[[], HonestBuyers]) -> None:
    attacker, fan = system.people(2, "0.00")
    _, seats = system.insert_event(SEATS)
    with honest_buyers():
        counts = reserve_all(attacker, seats)
        assert counts == {"200": MAX_HOLDS, "409 HOLD_LIMIT_REACHED": SEATS - MAX_HOLDS}
    free = [seat for seat in seats if system.seat_status(seat) == "AVAILABLE"]
    assert outcomes([fan.reserve(free[0])]) == {"200": 1}

    held = [seat for seat in seats if seat not in free]
    lapse(system, attacker)
    refused = attacker.reserve(held[0])
    assert refused.error_code == "HOLD_TOO_SOON"
    assert 0 < refused.envelope["details"]["retry_after_seconds"] <= 60
    assert "select another seat" in refused.envelope["message"]
    assert outcomes([fan.reserve(held[0])]) == {"200": 1}


def test_tickets_of_one_account_are_limited_on_both_ways(system: TestSystem) -> None:
    """A purchase and a transfer count alike. A refused transfer leaves the ticket and the credits."""
    collector, seller = system.people(2)
    event, seats = system.insert_event(MAX_TICKETS + 2)
    inserts.free_sales(system.connect, collector.user_id, seats[:MAX_TICKETS], event)
    inserts.free_sales(system.connect, seller.user_id, seats[-1:], event)
    assert outcomes([collector.reserve(seats[-2])]) == {"409 TICKET_LIMIT_REACHED": 1}
    transfer_id = system.start_transfer(seller, collector, seats[-1])
    codes = {"seller_otp": system.code(seller), "buyer_otp": system.code(collector)}
    assert outcomes([seller.confirm(transfer_id, **codes)]) == {"409 TICKET_LIMIT_REACHED": 1}
    assert str(system.seat_row(seats[-1])["owner_user_id"]) == seller.user_id
    assert (collector.balance(), seller.balance()) == (1000, 1000)
