"""The scan rules in their order (§7): each rule, and which of two rules wins."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from services.contracts.enums import ScanResult, SeatStatus
from services.orchestrator.tickets.qr import Ticket
from services.orchestrator.tickets.scan_rules import Admission, EventFacts, Gate, SeatFacts, judge_age, judge_seat

pytestmark = pytest.mark.unit

NOW = datetime(2026, 2, 19, 18, 10, 45, tzinfo=UTC)
OWNER = uuid4()
TICKET = Ticket(seat_id=uuid4(), user_id=OWNER, hall_id="HALL-A", generated_at=NOW)
EVENT = EventFacts(str(uuid4()), "An Event", "HALL-A", begins_at=NOW + timedelta(hours=1))
SOLD = SeatFacts(SeatStatus.SOLD, str(OWNER), has_confirmed_order=True, event=EVENT)
IN_HALL_B = replace(SOLD, event=replace(EVENT, hall_id="HALL-B"))
LONG_AGO = replace(SOLD, event=replace(EVENT, begins_at=NOW - timedelta(days=3)))


@pytest.mark.claim("gate/limits-qr-age", "gate/refuses-expired-qr", "threat/shared-screenshot")
@pytest.mark.parametrize(
    ("age", "verdict"),
    [
        (0, None),
        (60, None),
        (75, None),
        (76, ScanResult.EXPIRED),
        (-20, None),
        (-21, ScanResult.QR_INVALID),
        (86400, ScanResult.EXPIRED),
    ],
)
def test_qr_age_limits_are_exact_to_the_second(age: int, verdict: ScanResult | None) -> None:
    """The limits are 60 s and 5 s, and the clocks of two orchestrators may differ by 15 s."""
    assert judge_age(TICKET, NOW + timedelta(seconds=age)) is verdict


@pytest.mark.claim(
    "gate/applies-rules",
    "gate/admits-owner",
    "gate/admits-once",
    "gate/refuses-unpaid-seat",
    "gate/refuses-wrong-hall",
    "threat/passed-on-qr",
)
@pytest.mark.parametrize(
    ("seat", "hall", "verdict"),
    [
        (SOLD, "HALL-A", None),
        (replace(SOLD, status=SeatStatus.HELD), "HALL-A", ScanResult.UNPAID),
        (replace(SOLD, status=SeatStatus.AVAILABLE), "HALL-A", ScanResult.UNPAID),
        (replace(SOLD, status=SeatStatus.CHECKED_IN), "HALL-A", ScanResult.DUPLICATE),
        (replace(SOLD, has_confirmed_order=False), "HALL-A", ScanResult.UNPAID),
        (replace(SOLD, owner_user_id=str(uuid4())), "HALL-A", ScanResult.NOT_OWNER),
        (IN_HALL_B, "HALL-A", ScanResult.WRONG_HALL),
        (SOLD, "HALL-B", ScanResult.WRONG_HALL),
        (IN_HALL_B, "HALL-B", ScanResult.WRONG_HALL),
        (LONG_AGO, "HALL-B", ScanResult.EVENT_OVER),
        (replace(LONG_AGO, owner_user_id="x"), "HALL-A", ScanResult.NOT_OWNER),
        (replace(SOLD, status=SeatStatus.CHECKED_IN, owner_user_id="x"), "HALL-B", ScanResult.DUPLICATE),
        (replace(SOLD, owner_user_id="x"), "HALL-B", ScanResult.NOT_OWNER),
    ],
)
def test_first_rule_that_applies_decides(seat: SeatFacts, hall: str, verdict: ScanResult | None) -> None:
    assert judge_seat(TICKET, seat, Gate(hall), Admission(), NOW) is verdict


@pytest.mark.parametrize(
    ("hours", "seconds", "verdict"),
    [
        (-90 * 24, 0, ScanResult.TOO_EARLY),
        (-2, -16, ScanResult.TOO_EARLY),
        (-2, -15, None),
        (24, 15, None),
        (24, 16, ScanResult.EVENT_OVER),
        (72, 0, ScanResult.EVENT_OVER),
    ],
)
def test_limits_of_admission_are_exact_to_the_second(hours: int, seconds: int, verdict: ScanResult | None) -> None:
    """Admission opens 2 h before the begin and ends 24 h after it. The clocks may differ by 15 s."""
    now = EVENT.begins_at + timedelta(hours=hours, seconds=seconds)
    assert judge_seat(TICKET, SOLD, Gate("HALL-A"), Admission(opens_before=timedelta(hours=2)), now) is verdict


def test_without_the_setting_admission_is_never_too_early() -> None:
    assert judge_seat(TICKET, SOLD, Gate("HALL-A"), Admission(), NOW - timedelta(days=90)) is None


@pytest.mark.parametrize(
    ("gate", "verdict"),
    [
        (Gate("HALL-A", EVENT.event_id), None),
        (Gate("HALL-A", str(uuid4())), ScanResult.WRONG_EVENT),
        (Gate("HALL-B", str(uuid4())), ScanResult.WRONG_HALL),
    ],
)
def test_gate_of_one_event_admits_only_its_tickets(gate: Gate, verdict: ScanResult | None) -> None:
    assert judge_seat(TICKET, SOLD, gate, Admission(), NOW) is verdict
