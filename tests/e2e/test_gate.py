"""Scenario 3 through the gateway: every business rule, and N gates of which one admits (issue 5)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.support import qr
from tests.support.concurrency import outcomes
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

HALL, OTHER_HALL = "HALL-B", "HALL-A"
A_MOMENT = timedelta(seconds=5)
NO_SEAT = "5ea7000f-0000-0000-0000-000000000001"


def entries(system: TestSystem, staff: Person) -> list[dict[str, Any]]:
    """What a staff member's scans left behind, oldest first."""
    sql = "SELECT * FROM entry_logs WHERE scanned_by_staff_id = %s ORDER BY scanned_at, log_id"
    return system.rows("seats_db", sql, staff.user_id)


def key(system: TestSystem) -> str:
    """What QRs are sealed with."""
    return system.env("orchestrator-service")["QR_ENCRYPTION_KEY"]


def fresh(system: TestSystem, owner: Person, seat: str) -> str:
    """The owner's QR of this second."""
    return str(owner.qr(seat).must(200)["qr_payload"])


@pytest.mark.claim(
    "gate/post-verify",
    "gate/reads-seat",
    "gate/reads-hall",
    "gate/checks-in-and-logs",
    "gate/returns-result-and-message",
    "gate/logs-every-scan",
    "gate/admits-owner",
)
def test_the_owner_is_admitted_once_and_the_entry_says_who_where_and_what(system: TestSystem) -> None:
    owner, staff = system.person(), system.staff()
    seat = system.insert_ticket(owner)
    admitted = staff.scan(fresh(system, owner, seat), HALL).must(200)
    assert (admitted["result"], admitted["seat_id"]) == ("SUCCESS", seat)
    row, number = (system.seat_row(seat)[name] for name in ("row_number", "seat_number"))
    assert (admitted["row_number"], admitted["seat_number"]) == (row, number)
    assert admitted["message"] == f"Welcome. Row {row}, seat {number}."
    assert abs(datetime.now(UTC) - datetime.fromisoformat(admitted["scanned_at"])) < A_MOMENT
    assert system.seat_status(seat) == "CHECKED_IN"
    (entry,) = entries(system, staff)
    halls = [entry[f"hall_id_{of}"] for of in ("presented", "expected", "staff")]
    assert (str(entry["seat_id"]), entry["result"], halls) == (seat, "SUCCESS", [HALL] * 3)


@pytest.mark.claim("gate/admits-once")
@pytest.mark.parametrize("same_staff", [True, False])
def test_a_second_scan_is_duplicate_and_says_when_and_by_whom(system: TestSystem, same_staff: bool) -> None:
    owner, staff = system.person(), system.staff()
    payload = fresh(system, owner, system.insert_ticket(owner))
    first = staff.scan(payload, HALL).must(200)
    again = (staff if same_staff else system.staff()).scan(payload, HALL).must(200)
    assert again["result"] == "DUPLICATE"
    assert again["first_scanned_at"] == first["scanned_at"]
    assert again["message"].startswith("Already Checked In")
    assert ("by you" in again["message"]) == same_staff


@pytest.mark.claim("pay/returns-qr", "gate/decrypts-qr", "qr/created-at-purchase", "qr/created-on-request")
def test_the_qr_of_a_purchase_and_of_a_refresh_say_whose_seat_it_is_and_admit(system: TestSystem) -> None:
    owner, staff = system.person(), system.staff()
    seat, order_id = system.hold_seat(owner)
    paid = owner.pay(order_id).must(200)
    said = qr.decrypt(key(system), paid["qr_payload"])
    assert said.keys() == {"seat_id", "user_id", "hall_id", "generated_at"}
    assert (said["seat_id"], said["user_id"], said["hall_id"]) == (seat, owner.user_id, HALL)
    assert fresh(system, owner, seat) != fresh(system, owner, seat), "no two are alike"
    assert staff.scan(paid["qr_payload"], HALL).must(200)["result"] == "SUCCESS"


@pytest.mark.claim(
    "gate/limits-qr-age",
    "gate/reads-order",
    "gate/applies-rules",
    "gate/logs-every-scan",
    "gate/refuses-unpaid-seat",
    "gate/refuses-unknown-seat",
    "gate/refuses-wrong-hall",
    "gate/refuses-expired-qr",
    "threat/shared-screenshot",
    "threat/passed-on-qr",
    "qr/refreshes-stay-valid",
)
def test_each_rule_refuses_and_leaves_an_entry_and_the_seat_as_it_was(system: TestSystem) -> None:
    owner, staff, secret = system.person("5000.00"), system.staff(), key(system)
    seat = system.insert_ticket(owner)
    held, _ = system.hold_seat(owner)
    refunded, order_id = system.buy_seat(owner)
    staff.refund(order_id).must()
    scans = [
        ("UNPAID", qr.seal(secret, held, owner.user_id), HALL, "Incomplete Payment"),
        ("UNPAID", qr.seal(secret, refunded, owner.user_id), HALL, "Incomplete Payment"),
        ("NOT_FOUND", qr.seal(secret, NO_SEAT, owner.user_id), HALL, "Possible Counterfeit"),
        ("EXPIRED", qr.seal(secret, seat, owner.user_id, age_seconds=62), HALL, "Expired QR"),
        ("NOT_OWNER", qr.seal(secret, seat, system.person().user_id), HALL, "transferred"),
        ("WRONG_HALL", qr.seal(secret, seat, owner.user_id), OTHER_HALL, f"Go to {HALL}"),
        ("WRONG_HALL", qr.seal(secret, seat, owner.user_id, hall=OTHER_HALL), OTHER_HALL, f"Go to {HALL}"),
        ("WRONG_HALL", qr.seal(secret, seat, owner.user_id, hall=OTHER_HALL), HALL, f"Go to {HALL}"),
    ]
    for expected, payload, hall, message in scans:
        answer = staff.scan(payload, hall).must(200)
        assert (answer["result"], message in answer["message"]) == (expected, True), answer
    logged = entries(system, staff)
    assert [entry["result"] for entry in logged] == [expected for expected, *_ in scans]
    halls = ("hall_id_presented", "hall_id_expected", "hall_id_staff")
    assert [logged[-2][name] for name in halls] == [OTHER_HALL, HALL, OTHER_HALL]
    assert [logged[-1][name] for name in halls] == [OTHER_HALL, HALL, HALL]
    assert (system.seat_status(seat), system.seat_status(held)) == ("SOLD", "HELD")
    assert staff.scan(qr.seal(secret, seat, owner.user_id, age_seconds=55), HALL).must()["result"] == "SUCCESS"


@pytest.mark.claim("transfer/replaces-qr", "threat/replay-after-transfer", "qr/created-at-transfer")
def test_after_a_transfer_the_old_owners_qr_is_refused_and_the_new_owners_admitted(system: TestSystem) -> None:
    seller, buyer, staff = system.person(), system.person(), system.staff()
    seat = system.insert_ticket(seller)
    old, kept = fresh(system, seller, seat), system.seat_row(seat)["qr_code_hash"]
    system.complete_transfer(seller, buyer, seat, 10)
    assert system.seat_row(seat)["qr_code_hash"] not in (kept, None)
    assert staff.scan(old, HALL).must(200)["result"] == "NOT_OWNER"
    assert outcomes([seller.qr(seat)]) == {"403 NOT_SEAT_OWNER": 1}
    assert staff.scan(fresh(system, buyer, seat), HALL).must(200)["result"] == "SUCCESS"


def test_a_gate_that_asks_again_after_a_lost_reply_is_told_success(system: TestSystem) -> None:
    owner, staff = system.person(), system.staff()
    payload, again = fresh(system, owner, system.insert_ticket(owner)), {"Idempotency-Key": str(uuid4())}
    first = staff.scan(payload, HALL, **again).must(200)
    assert first["result"] == "SUCCESS"
    assert staff.scan(payload, HALL, **again).must(200) == first
    assert [entry["result"] for entry in entries(system, staff)] == ["SUCCESS"]
    assert staff.scan(payload, HALL).must(200)["result"] == "DUPLICATE"


def test_a_gate_whose_reply_was_lost_in_a_crash_is_told_success(system: TestSystem) -> None:
    owner, staff = system.person(), system.staff()
    payload, again = fresh(system, owner, system.insert_ticket(owner)), {"Idempotency-Key": str(uuid4())}
    staff.scan(payload, HALL, **again).must(200)
    # The reply was never kept, as if the process had died between the admission and its own record of it.
    lost = "UPDATE idempotency_keys SET answer = NULL, owner = NULL WHERE key = %s"
    system.rows("sagas_db", lost, again["Idempotency-Key"])
    assert staff.scan(payload, HALL, **again).must(200)["result"] == "SUCCESS"
    assert len(entries(system, staff)) == 1
