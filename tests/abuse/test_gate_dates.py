"""Guests show tickets of another day, and tickets of another event in the same hall."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.runtime.ports import HOST
from tests.abuse.honest_buyers import HonestBuyers
from tests.concurrency.patched_service import run_patched
from tests.support import inserts
from tests.support.people import Person
from tests.support.running_stack import native_only
from tests.support.system import TestSystem

pytestmark = [pytest.mark.abuse, pytest.mark.usefixtures("invariants")]

HALL = "HALL-B"


def insert_ticket(system: TestSystem, owner: Person, begins_in_hours: float) -> tuple[str, str]:
    """Insert an event with one ticket. Returns the ids of the event and the seat."""
    event, seats = system.insert_event(1, begins_in_hours, HALL)
    inserts.free_sales(system.connect, owner.user_id, seats, event)
    return event, seats[0]


def scan(gate: Person, owner: Person, seat: str, event: str | None = None) -> str:
    """Scan a new QR code of the ticket and return the result."""
    return str(gate.scan(owner.qr(seat).must(200)["qr_payload"], HALL, event).must(200)["result"])


def read_log(system: TestSystem, seat: str) -> list[tuple[str, str | None]]:
    """Read the logged scans of a seat: each result with the event of the gate."""
    sql = "SELECT result, event_id_staff::text AS event FROM entry_logs WHERE seat_id = %s ORDER BY scanned_at"
    return [(row["result"], row["event"]) for row in system.rows("seats_db", sql, seat)]


def test_ticket_of_a_past_event_does_not_admit(system: TestSystem, honest_buyers: Callable[[], HonestBuyers]) -> None:
    guest, staff = system.person(), system.staff()
    _, past = insert_ticket(system, guest, begins_in_hours=-72)
    _, running = insert_ticket(system, guest, begins_in_hours=-20)
    with honest_buyers():
        refused = staff.scan(guest.qr(past).must(200)["qr_payload"], HALL).must(200)
        assert refused["result"] == "EVENT_OVER"
        assert refused["message"].startswith("This event is over: An Event, ")
        assert scan(staff, guest, running) == "SUCCESS", "20 hours after the begin is within the grace"
    assert read_log(system, past) == [("EVENT_OVER", None)]
    assert system.seat_status(past) == "SOLD"


def test_gate_of_one_event_refuses_the_other_event_in_its_hall(system: TestSystem) -> None:
    guest, staff = system.person(), system.staff()
    tonight, ticket = insert_ticket(system, guest, begins_in_hours=1)
    tomorrow, other = insert_ticket(system, guest, begins_in_hours=25)
    assert scan(staff, guest, other, event=tonight) == "WRONG_EVENT"
    assert read_log(system, other) == [("WRONG_EVENT", tonight)]
    assert scan(staff, guest, ticket, event=tonight) == "SUCCESS"
    assert scan(staff, guest, other, event=tomorrow) == "SUCCESS"


@native_only("a second orchestrator runs next to the stack")
def test_admission_opens_some_hours_before_the_event(system: TestSystem) -> None:
    guest, staff = system.person(), system.staff()
    _, soon = insert_ticket(system, guest, begins_in_hours=5)
    _, later = insert_ticket(system, guest, begins_in_hours=7)
    with run_patched(system.stack, "orchestrator-service", "", {"ADMISSION_OPENS_HOURS": "6"}) as ports:
        gate = staff.at(f"http://{HOST}:{ports['PORT']}")
        assert scan(gate, guest, later) == "TOO_EARLY"
        assert read_log(system, later) == [("TOO_EARLY", None)]
        assert scan(gate, guest, soon) == "SUCCESS"
    assert scan(staff, guest, later) == "SUCCESS", "without the setting, a ticket admits at any time before"
