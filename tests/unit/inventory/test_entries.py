"""MarkCheckedIn and LogEntry over gRPC: one gate admits, and a retry of a scan gets its first answer."""

from __future__ import annotations

from functools import partial

import pytest

from services.chassis.errors import Unknown
from tests.support.service_settings import new_id
from tests.unit.inventory.inventory_service import InventoryService, expect_refusal, run_concurrently

pytestmark = pytest.mark.unit

ENTRIES = "SELECT * FROM entry_logs WHERE seat_id = %(seat_id)s ORDER BY scanned_at"


def results(inventory: InventoryService, seat_id: str) -> list[str]:
    return [entry["result"] for entry in inventory.rows(ENTRIES, seat_id=seat_id)]


@pytest.mark.claim(
    "schema/entry_logs.scanned_at",
    "schema/entry_logs.scanned_by_staff_id",
    "schema/entry_logs.result",
    "schema/entry_logs.hall_id_presented",
    "schema/entry_logs.hall_id_expected",
    "gate/checks-in-and-logs",
)
def test_owner_is_admitted_and_the_entry_names_staff_and_halls(inventory):
    seat_id, order_id, owner = inventory.sold_seat()
    staff = new_id()
    scan = inventory.check_in(seat_id, order_id, owner, staff_id=staff, hall_id_staff="HALL-B")
    assert scan.result == "SUCCESS"
    assert not scan.HasField("first_scanned_at")
    assert inventory.seat(seat_id).status == "CHECKED_IN"
    (entry,) = inventory.rows(ENTRIES, seat_id=seat_id)
    assert (str(entry["scanned_by_staff_id"]), entry["hall_id_presented"]) == (staff, "HALL-A")
    assert (entry["hall_id_expected"], entry["hall_id_staff"]) == ("HALL-A", "HALL-B")


@pytest.mark.claim("gate/admits-once")
def test_second_scan_is_a_duplicate_with_the_first_admission(inventory):
    seat_id, order_id, owner = inventory.sold_seat()
    staff = new_id()
    first = inventory.check_in(seat_id, order_id, owner, staff_id=staff)
    again = inventory.check_in(seat_id, order_id, owner)
    assert again.result == "DUPLICATE"
    assert (again.first_scanned_at, again.first_staff_id) == (first.scanned_at, staff)
    assert results(inventory, seat_id) == ["SUCCESS", "DUPLICATE"]


@pytest.mark.claim("gate/admits-once")
def test_one_of_several_concurrent_gates_admits(inventory):
    seat_id, order_id, owner = inventory.sold_seat()
    scans = inventory.run_at_locked_row(seat_id, [partial(inventory.check_in, seat_id, order_id, owner)] * 4)
    assert sorted(getattr(scan, "result", scan) for scan in scans) == ["DUPLICATE"] * 3 + ["SUCCESS"]
    assert sorted(results(inventory, seat_id)) == ["DUPLICATE"] * 3 + ["SUCCESS"]


def test_concurrent_retries_of_a_scan_get_its_first_answer(inventory):
    seat_id, order_id, owner = inventory.sold_seat()
    scan = {"scan_id": new_id(), "staff_id": new_id()}
    answers = run_concurrently([lambda: inventory.check_in(seat_id, order_id, owner, **scan)] * 8)
    assert [answer.result for answer in answers] == ["SUCCESS"] * 8
    assert len({answer.scanned_at.ToMicroseconds() for answer in answers}) == 1
    assert results(inventory, seat_id) == ["SUCCESS"]


def test_retry_of_a_duplicate_gets_the_same_answer(inventory):
    seat_id, order_id, owner = inventory.sold_seat()
    inventory.check_in(seat_id, order_id, owner)
    scan = {"scan_id": new_id(), "staff_id": new_id()}
    first = inventory.check_in(seat_id, order_id, owner, **scan)
    assert inventory.check_in(seat_id, order_id, owner, **scan) == first


def test_log_call_after_an_admission_returns_the_admission(inventory):
    seat_id, order_id, owner = inventory.sold_seat()
    scan = {"scan_id": new_id(), "staff_id": new_id()}
    inventory.check_in(seat_id, order_id, owner, **scan)
    assert inventory.log_entry(seat_id, "DUPLICATE", **scan).result == "SUCCESS"


def test_scan_id_of_another_staff_member_is_another_scan(inventory):
    one, other = inventory.sold_seat(), inventory.sold_seat()
    assert inventory.check_in(*one, scan_id="1").result == "SUCCESS"
    assert inventory.check_in(*other, scan_id="1").result == "SUCCESS"


def test_scan_id_used_for_another_seat_is_refused_and_admits_nobody(inventory):
    one, other = inventory.sold_seat(), inventory.sold_seat()
    scan = {"scan_id": new_id(), "staff_id": new_id()}
    inventory.check_in(*one, **scan)
    with expect_refusal("IDEMPOTENCY_KEY_REUSED"):
        inventory.check_in(*other, **scan)
    assert inventory.seat(other[0]).status == "SOLD"


@pytest.mark.claim("threat/replay-after-transfer")
def test_old_owner_is_refused_under_the_lock(inventory):
    seat_id, order_id, seller = inventory.sold_seat()
    inventory.update_owner(seat_id, order_id, seller, new_id())
    assert inventory.check_in(seat_id, order_id, seller).result == "NOT_OWNER"
    assert inventory.seat(seat_id).status == "SOLD"
    assert results(inventory, seat_id) == ["NOT_OWNER"]


def test_cancelled_or_other_sale_is_unpaid(inventory):
    seat_id, order_id, owner = inventory.sold_seat()
    assert inventory.check_in(seat_id, new_id(), owner).result == "UNPAID"
    inventory.cancel_sale(seat_id, order_id, owner)
    assert inventory.check_in(seat_id, order_id, owner).result == "UNPAID"


@pytest.mark.claim("gate/refuses-unpaid-seat")
def test_held_seat_is_unpaid(inventory):
    seat_id, hold_id, user_id = inventory.held_seat()
    assert inventory.check_in(seat_id, hold_id, user_id).result == "UNPAID"


@pytest.mark.claim("gate/refuses-unknown-seat")
def test_unknown_seat_is_logged_as_not_found(inventory):
    seat_id = new_id()
    assert inventory.check_in(seat_id, new_id(), new_id()).result == "NOT_FOUND"
    assert results(inventory, seat_id) == ["NOT_FOUND"]


def test_concurrent_scan_and_transfer_agree_on_the_owner(inventory):
    for _ in range(20):
        seat_id, order_id, seller = inventory.sold_seat()
        scan, transfer = run_concurrently(
            [
                partial(inventory.check_in, seat_id, order_id, seller),
                partial(inventory.update_owner, seat_id, order_id, seller, new_id()),
            ]
        )
        assert (scan.result == "SUCCESS") is (transfer == "SEAT_UNAVAILABLE")


@pytest.mark.claim("schema/entry_logs.seat_id", "gate/unreadable-qr-changes-nothing")
def test_unreadable_qr_is_logged_without_a_seat(inventory):
    staff, scan_id = new_id(), new_id()
    scan = inventory.log_entry("", "QR_INVALID", staff_id=staff, scan_id=scan_id, hall_id_presented="")
    assert scan.result == "QR_INVALID"
    by_staff = "SELECT * FROM entry_logs WHERE scanned_by_staff_id = %(staff_id)s"
    (entry,) = inventory.rows(by_staff, staff_id=staff)
    assert (entry["seat_id"], entry["hall_id_presented"]) == (None, None)


def test_concurrent_retries_of_a_refused_scan_leave_one_entry(inventory):
    seat_id, scan = inventory.new_seat(), {"scan_id": new_id(), "staff_id": new_id()}
    answers = run_concurrently([lambda: inventory.log_entry(seat_id, "EXPIRED", **scan)] * 6)
    assert [answer.result for answer in answers] == ["EXPIRED"] * 6
    assert results(inventory, seat_id) == ["EXPIRED"]


@pytest.mark.claim("gate/admits-once")
def test_database_allows_one_admission_per_seat(inventory):
    seat_id, order_id, owner = inventory.sold_seat()
    inventory.check_in(seat_id, order_id, owner)
    with inventory.db.transaction() as tx:
        tx.run("UPDATE seats SET status = 'SOLD' WHERE seat_id = %(seat_id)s", seat_id=seat_id)
    with pytest.raises(Unknown):
        inventory.check_in(seat_id, order_id, owner)
    assert results(inventory, seat_id) == ["SUCCESS"]
