"""A scan reads seat and order in parallel, and survives an entry log that is down (§7)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Barrier
from typing import Any, cast
from uuid import uuid4

import pytest

from services.chassis.errors import Unknown
from services.contracts.enums import ScanResult, SeatStatus
from services.contracts.pb import inventory_pb2 as pb
from services.orchestrator.participants import Participants
from services.orchestrator.tickets.qr import Seal
from services.orchestrator.tickets.scan import ScanRequest, TicketScanner
from services.orchestrator.tickets.scan_rules import Admission, Gate

pytestmark = pytest.mark.unit

SEAT, OWNER, ORDER, HALL = uuid4(), uuid4(), str(uuid4()), "HALL-A"


@dataclass
class FakeServices:
    """Inventory, Order and Event in one: a seat of OWNER, and an entry log that can be down."""

    status: SeatStatus = SeatStatus.SOLD
    meet: Barrier = field(default_factory=lambda: Barrier(1))
    is_log_down: bool = False
    seal: Seal = field(default_factory=lambda: Seal(b"k" * 32))

    def get_ticket(self, seat_id: str) -> pb.Seat:
        self.meet.wait(5)
        return pb.Seat(seat_id=seat_id, status=self.status, owner_user_id=str(OWNER), order_id=ORDER, event_id="e")

    def list_orders(self, **_query: Any) -> dict[str, Any]:
        self.meet.wait(5)
        return {"data": [{"order_id": ORDER}]}

    def get(self, _event_id: str) -> dict[str, str]:
        return {"hall_id": HALL, "name": "An Event", "event_date": datetime.now(UTC).isoformat()}

    def check_in(self, *_scan: Any) -> pb.Scan:
        return pb.Scan(result=ScanResult.SUCCESS)

    def log_entry(self, _seat_id: str, result: ScanResult, _facts: Any) -> pb.Scan:
        if self.is_log_down:
            raise Unknown("Inventory does not answer")
        return pb.Scan(result=result)

    @property
    def as_participants(self) -> Participants:
        """Return them as the participants of a scanner."""
        self.inventory = self.orders = self.events = self
        return cast(Participants, self)


def scan(services: FakeServices) -> Any:
    """Scan the owner's QR code."""
    payload = services.seal.seal(SEAT, OWNER, HALL).payload
    scanner = TicketScanner(services.as_participants, retry_seconds=0.1, admission=Admission())
    return scanner.scan(ScanRequest(uuid4(), uuid4(), Gate(HALL), payload))


@pytest.mark.claim("gate/calls-in-parallel")
def test_seat_and_order_are_read_in_parallel() -> None:
    """Each fake call returns only after both calls have started."""
    assert scan(FakeServices(meet=Barrier(2)))["result"] == ScanResult.SUCCESS


@pytest.mark.claim("gate/failed-entry-is-logged")
def test_refused_scan_is_logged_as_an_error_without_entry_log(caplog: pytest.LogCaptureFixture) -> None:
    refused = scan(FakeServices(status=SeatStatus.HELD, is_log_down=True))
    assert refused["result"] == ScanResult.UNPAID
    [line] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert f"entry log of a UNPAID scan is missing: seat {SEAT}" in line.getMessage()
