"""Scenario 3 through the gateway: every rule of a scan, and retries of a scan."""

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


def list_entries(system: TestSystem, staff: Person) -> list[dict[str, Any]]:
    """List the logged scans of a staff member, oldest first."""
    sql = "SELECT * FROM entry_logs WHERE scanned_by_staff_id = %s ORDER BY scanned_at, log_id"
    return system.rows("seats_db", sql, staff.user_id)


def get_key(system: TestSystem) -> str:
    """Return the key that encrypts QR codes."""
    return system.env("orchestrator-service")["QR_ENCRYPTION_KEY"]


def get_qr(owner: Person, seat: str) -> str:
    """Get a new QR code as the owner of a seat."""
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
def test_the_owner_is_admitted_and_the_scan_is_logged(system: TestSystem) -> None:
    owner, staff = system.person(), system.staff()
    seat = system.insert_ticket(owner)
    admitted = staff.scan(get_qr(owner, seat), HALL).must(200)
    assert (admitted["result"], admitted["seat_id"]) == ("SUCCESS", seat)
    row, number = (system.seat_row(seat)[name] for name in ("row_number", "seat_number"))
    assert (admitted["row_number"], admitted["seat_number"]) == (row, number)
    assert admitted["message"] == f"Welcome. Row {row}, seat {number}."
    assert abs(datetime.now(UTC) - datetime.fromisoformat(admitted["scanned_at"])) < A_MOMENT
    assert system.seat_status(seat) == "CHECKED_IN"
    (entry,) = list_entries(system, staff)
    halls = [entry[f"hall_id_{source}"] for source in ("presented", "expected", "staff")]
    assert (str(entry["seat_id"]), entry["result"], halls) == (seat, "SUCCESS", [HALL] * 3)


@pytest.mark.claim("gate/admits-once")
@pytest.mark.parametrize("same_staff", [True, False])
def test_a_second_scan_is_duplicate_and_shows_the_first(system: TestSystem, same_staff: bool) -> None:
    owner, staff = system.person(), system.staff()
    payload = get_qr(owner, system.insert_ticket(owner))
    first = staff.scan(payload, HALL).must(200)
    again = (staff if same_staff else system.staff()).scan(payload, HALL).must(200)
    assert again["result"] == "DUPLICATE"
    assert again["first_scanned_at"] == first["scanned_at"]
    assert again["message"].startswith("Already Checked In")
    assert ("by you" in again["message"]) == same_staff


@pytest.mark.claim("pay/returns-qr", "gate/decrypts-qr", "qr/created-at-purchase", "qr/created-on-request")
def test_the_qr_of_a_purchase_names_seat_and_owner_and_admits(system: TestSystem) -> None:
    owner, staff = system.person(), system.staff()
    seat, order_id = system.hold_seat(owner)
    paid = owner.pay(order_id).must(200)
    content = qr.decrypt(get_key(system), paid["qr_payload"])
    assert content.keys() == {"seat_id", "user_id", "hall_id", "generated_at"}
    assert (content["seat_id"], content["user_id"], content["hall_id"]) == (seat, owner.user_id, HALL)
    assert get_qr(owner, seat) != get_qr(owner, seat), "each refresh gives another QR code"
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
def test_each_rule_refuses_logs_and_leaves_the_seat_unchanged(system: TestSystem) -> None:
    owner, staff, secret = system.person("5000.00"), system.staff(), get_key(system)
    seat = system.insert_ticket(owner)
    held, _ = system.hold_seat(owner)
    refunded, order_id = system.buy_seat(owner)
    staff.refund(order_id).must()
    scans = [
        ("UNPAID", qr.seal(secret, held, owner.user_id), HALL, "Incomplete Payment"),
        ("UNPAID", qr.seal(secret, refunded, owner.user_id), HALL, "Incomplete Payment"),
        ("NOT_FOUND", qr.seal(secret, NO_SEAT, owner.user_id), HALL, "Possible Counterfeit"),
        ("EXPIRED", qr.seal(secret, seat, owner.user_id, age_seconds=77), HALL, "Expired QR"),
        ("NOT_OWNER", qr.seal(secret, seat, system.person().user_id), HALL, "transferred"),
        ("WRONG_HALL", qr.seal(secret, seat, owner.user_id), OTHER_HALL, f"Go to {HALL}"),
        ("WRONG_HALL", qr.seal(secret, seat, owner.user_id, hall=OTHER_HALL), OTHER_HALL, f"Go to {HALL}"),
        ("WRONG_HALL", qr.seal(secret, seat, owner.user_id, hall=OTHER_HALL), HALL, f"Go to {HALL}"),
    ]
    for expected, payload, hall, message in scans:
        answer = staff.scan(payload, hall).must(200)
        assert (answer["result"], message in answer["message"]) == (expected, True), answer
    entries = list_entries(system, staff)
    assert [entry["result"] for entry in entries] == [expected for expected, *_ in scans]
    halls = ("hall_id_presented", "hall_id_expected", "hall_id_staff")
    assert [entries[-2][name] for name in halls] == [OTHER_HALL, HALL, OTHER_HALL]
    assert [entries[-1][name] for name in halls] == [OTHER_HALL, HALL, HALL]
    assert (system.seat_status(seat), system.seat_status(held)) == ("SOLD", "HELD")
    assert staff.scan(qr.seal(secret, seat, owner.user_id, age_seconds=55), HALL).must()["result"] == "SUCCESS"


@pytest.mark.claim("transfer/replaces-qr", "threat/replay-after-transfer", "qr/created-at-transfer")
def test_a_transfer_replaces_the_qr_of_the_old_owner(system: TestSystem) -> None:
    seller, buyer, staff = system.person(), system.person(), system.staff()
    seat = system.insert_ticket(seller)
    old, old_hash = get_qr(seller, seat), system.seat_row(seat)["qr_code_hash"]
    system.complete_transfer(seller, buyer, seat, 10)
    assert system.seat_row(seat)["qr_code_hash"] not in (old_hash, None)
    assert staff.scan(old, HALL).must(200)["result"] == "NOT_OWNER"
    assert outcomes([seller.qr(seat)]) == {"403 NOT_SEAT_OWNER": 1}
    assert staff.scan(get_qr(buyer, seat), HALL).must(200)["result"] == "SUCCESS"


def test_a_scan_repeated_under_its_key_gets_the_first_answer(system: TestSystem) -> None:
    owner, staff = system.person(), system.staff()
    payload, again = get_qr(owner, system.insert_ticket(owner)), {"Idempotency-Key": str(uuid4())}
    first = staff.scan(payload, HALL, **again).must(200)
    assert first["result"] == "SUCCESS"
    assert staff.scan(payload, HALL, **again).must(200) == first
    assert [entry["result"] for entry in list_entries(system, staff)] == ["SUCCESS"]
    assert staff.scan(payload, HALL).must(200)["result"] == "DUPLICATE"


def test_a_scan_repeated_after_a_crash_is_still_success(system: TestSystem) -> None:
    owner, staff = system.person(), system.staff()
    payload, again = get_qr(owner, system.insert_ticket(owner)), {"Idempotency-Key": str(uuid4())}
    staff.scan(payload, HALL, **again).must(200)
    # The key has no stored answer, as if the process had died between the admission and the write of the answer.
    lost = "UPDATE idempotency_keys SET answer = NULL, owner = NULL WHERE key = %s"
    system.rows("sagas_db", lost, again["Idempotency-Key"])
    assert staff.scan(payload, HALL, **again).must(200)["result"] == "SUCCESS"
    assert len(list_entries(system, staff)) == 1
