"""Each command of staff leaves a record in the journal, in the audit table and in the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.abuse.honest_buyers import HonestBuyers
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.abuse, pytest.mark.usefixtures("invariants")]


def find_records(system: TestSystem, staff: Person) -> list[dict[str, Any]]:
    """List the records of a staff member from the API, newest first."""
    listed = system.staff().get("/api/audit?per_page=100").must(200)
    return [record for record in listed if record["staff_id"] == staff.user_id]


def test_each_command_of_staff_is_recorded_once(system: TestSystem, honest_buyers: Callable[[], HonestBuyers]) -> None:
    staff, seller, buyer = system.staff(), system.person(), system.person()
    with honest_buyers():
        _, order_id = system.buy_seat(buyer)
        reversed_id, dismissed_id = (
            system.dispute_transfer(seller, buyer, seat) for seat in system.insert_tickets(seller, 2)
        )
        for _ in range(2):  # a retry joins the first command
            staff.refund(order_id).must(200)
            staff.transfer("reverse", reversed_id).must(200)
            staff.transfer("dismiss", dismissed_id).must(200)
    records = find_records(system, staff)
    expected = [("dismiss", dismissed_id), ("reverse", reversed_id), ("refund", order_id)]
    assert [(record["action"], record["subject"]) for record in records] == expected
    assert {record["outcome"] for record in records} == {"DONE"}
    journal = system.rows("sagas_db", "SELECT saga_id::text FROM sagas WHERE given->>'staff_id' = %s", staff.user_id)
    assert {row["saga_id"] for row in journal} == {record["saga_id"] for record in records}
    for record in records:
        lines = system.log_lines("orchestrator-service", f"staff member {staff.user_id}")
        assert any(f"the command {record['action']} for {record['subject']}" in line["message"] for line in lines)


def test_refused_command_is_recorded_too(system: TestSystem) -> None:
    staff, buyer = system.staff(), system.person()
    _, order_id = system.hold_seat(buyer)
    assert staff.refund(order_id).status == 409
    (record,) = find_records(system, staff)
    assert (record["action"], record["subject"], record["outcome"]) == ("refund", order_id, "REFUSED")


def test_commands_to_accounts_are_recorded_with_the_others(system: TestSystem) -> None:
    staff, user = system.staff(), system.person()
    for command in ("logout", "lock", "unlock"):
        staff.post(f"/api/auth/users/{user.user_id}/{command}").must(200)
    found = [(record["action"], record["subject"]) for record in find_records(system, staff)]
    assert found == [("unlock", user.user_id), ("lock", user.user_id), ("end_logins", user.user_id)]
    kept = system.rows("users_db", "SELECT action FROM staff_commands WHERE staff_id = %s", staff.user_id)
    assert len(kept) == 3
