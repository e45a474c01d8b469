"""The scan rules in their order (§7): each rule, and which of two rules wins."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from services.contracts.enums import ScanResult, SeatStatus
from services.orchestrator.tickets.qr import Ticket
from services.orchestrator.tickets.scan_rules import SeatFacts, judge_age, judge_seat

pytestmark = pytest.mark.unit

NOW = datetime(2026, 2, 19, 18, 10, 45, tzinfo=UTC)
OWNER = uuid4()
TICKET = Ticket(seat_id=uuid4(), user_id=OWNER, hall_id="HALL-A", generated_at=NOW)
SOLD = SeatFacts(SeatStatus.SOLD, str(OWNER), has_confirmed_order=True, hall_id="HALL-A")


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
        (replace(SOLD, hall_id="HALL-B"), "HALL-A", ScanResult.WRONG_HALL),
        (SOLD, "HALL-B", ScanResult.WRONG_HALL),
        (replace(SOLD, hall_id="HALL-B"), "HALL-B", ScanResult.WRONG_HALL),
        (replace(SOLD, status=SeatStatus.CHECKED_IN, owner_user_id="x"), "HALL-B", ScanResult.DUPLICATE),
        (replace(SOLD, owner_user_id="x"), "HALL-B", ScanResult.NOT_OWNER),
    ],
)
def test_first_rule_that_applies_decides(seat: SeatFacts, hall: str, verdict: ScanResult | None) -> None:
    assert judge_seat(TICKET, seat, hall) is verdict
