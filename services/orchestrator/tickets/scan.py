"""A scan at the gate: read the facts in two parallel branches, judge, admit, and log the result (§7).

VerifyTicket → event        order look-up
          └──────┬───────────────┘
              judge → MarkCheckedIn, or LogEntry
"""

from __future__ import annotations

import contextvars
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from services.chassis.errors import Refused, Unknown
from services.contracts.enums import OrderStatus, ScanResult, SeatStatus
from services.contracts.errors import ErrorCode
from services.contracts.pb import inventory_pb2 as pb
from services.orchestrator.participants import Participants
from services.orchestrator.saga.retry import retry_until
from services.orchestrator.tickets.qr import Ticket
from services.orchestrator.tickets.scan_rules import (
    MESSAGES,
    Admission,
    EventFacts,
    Gate,
    SeatFacts,
    judge_age,
    judge_seat,
)

logger = logging.getLogger(__name__)
BRANCH_THREADS = 32
T = TypeVar("T")


@dataclass(frozen=True)
class ScanRequest:
    """A scan of a QR payload by a staff member at a gate. `scan_id` makes a retry safe."""

    scan_id: UUID
    staff_id: UUID
    gate: Gate
    qr_payload: str

    def make_facts(self, presented: str = "", expected: str = "") -> pb.ScanFacts:
        """Create the facts for the entry log: the staff member, the gate and all three halls."""
        return pb.ScanFacts(
            scan_id=str(self.scan_id),
            staff_id=str(self.staff_id),
            hall_id_presented=presented,
            hall_id_expected=expected,
            hall_id_staff=self.gate.hall_id,
            event_id_staff=self.gate.event_id,
        )


class TicketScanner:
    """Judges and records scans."""

    def __init__(self, participants: Participants, retry_seconds: float, admission: Admission) -> None:
        self._participants = participants
        self._admission = admission
        self._retry_seconds = retry_seconds
        self._branches = ThreadPoolExecutor(BRANCH_THREADS, "scan")

    def scan(self, request: ScanRequest) -> Mapping[str, Any]:
        """Judge a scan and return the response data. A guest who is not admitted is a result, not an error.

        Raises Refused QR_INVALID for an unreadable QR code. Raises Unknown when a service does not answer, and then a
        retry is safe.
        """
        try:
            ticket = self._participants.seal.open(request.qr_payload)
        except Refused:
            self._log("", ScanResult.QR_INVALID, request.make_facts())
            raise
        return self._judge(request, ticket)

    def _judge(self, request: ScanRequest, ticket: Ticket) -> Mapping[str, Any]:
        seat_id = str(ticket.seat_id)
        if verdict := judge_age(ticket, datetime.now(UTC)):
            return self._refuse(request, ticket, verdict)
        try:
            seat, order_id, event = self._look_up(seat_id)
        except Refused as refusal:
            if refusal.code is ErrorCode.SEAT_NOT_FOUND:
                return self._refuse(request, ticket, ScanResult.NOT_FOUND)
            raise
        facts = SeatFacts(SeatStatus(seat.status), seat.owner_user_id, order_id == seat.order_id != "", event)
        if verdict := judge_seat(ticket, facts, request.gate, self._admission, datetime.now(UTC)):
            return self._refuse(request, ticket, verdict, seat, event)
        return self._admit(request, ticket, seat, event)

    def _look_up(self, seat_id: str) -> tuple[pb.Seat, str, EventFacts]:
        context = contextvars.copy_context()
        order = self._branches.submit(context.run, self._find_confirmed_order, seat_id)
        seat = self._retry(lambda: self._participants.inventory.get_ticket(seat_id))
        event = self._retry(lambda: self._participants.events.get(seat.event_id))
        begins_at = datetime.fromisoformat(event["event_date"])
        return seat, order.result(), EventFacts(seat.event_id, event["name"], event["hall_id"], begins_at)

    def _find_confirmed_order(self, seat_id: str) -> str:
        # A seat has one sale at most. With two rows a page, the page is not full, so Order does not count all rows.
        query = {"seat_id": seat_id, "status": OrderStatus.CONFIRMED, "per_page": 2}
        orders = self._retry(lambda: self._participants.orders.list_orders(**query))["data"]
        return str(orders[0]["order_id"]) if orders else ""

    def _admit(self, request: ScanRequest, ticket: Ticket, seat: pb.Seat, event: EventFacts) -> Mapping[str, Any]:
        facts = request.make_facts(ticket.hall_id, event.hall_id)
        owner = str(ticket.user_id)
        scan = self._retry(lambda: self._participants.inventory.check_in(seat.seat_id, seat.order_id, owner, facts))
        return self._describe(ScanResult(scan.result), scan, seat, event, request)

    def _retry(self, call: Callable[[], T]) -> T:
        return retry_until(time.monotonic() + self._retry_seconds, call)

    def _refuse(
        self,
        request: ScanRequest,
        ticket: Ticket,
        verdict: ScanResult,
        seat: pb.Seat | None = None,
        event: EventFacts | None = None,
    ) -> Mapping[str, Any]:
        if verdict is ScanResult.QR_INVALID:
            self._log(str(ticket.seat_id), verdict, request.make_facts(ticket.hall_id))
            raise Refused(ErrorCode.QR_INVALID)
        facts = request.make_facts(ticket.hall_id, event.hall_id if event else "")
        scan = self._log(str(ticket.seat_id), verdict, facts)
        if scan.result == ScanResult.SUCCESS and seat is None:  # a retry of a scan whose QR code expired after it
            seat = self._retry(lambda: self._participants.inventory.get_ticket(str(ticket.seat_id)))
        return self._describe(verdict, scan, seat, event, request)

    def _log(self, seat_id: str, result: ScanResult, facts: pb.ScanFacts) -> pb.Scan:
        try:
            return self._retry(lambda: self._participants.inventory.log_entry(seat_id, result, facts))
        except Unknown:
            if result in (ScanResult.DUPLICATE, ScanResult.EXPIRED):
                raise  # a retry of this scan may have been admitted before, and only the entry log records that
            # not critical (§7), because the guest is refused anyway
            logger.error("entry log of a %s scan is missing: seat %s scan %s", result, seat_id, facts.scan_id)
            return pb.Scan(result=result)

    def _describe(
        self,
        verdict: ScanResult,
        scan: pb.Scan,
        seat: pb.Seat | None,
        event: EventFacts | None,
        request: ScanRequest,
    ) -> Mapping[str, Any]:
        verdict = ScanResult(scan.result or verdict)
        data: dict[str, Any] = {"result": verdict, "scanned_at": _read_time(scan)}
        if seat is not None:
            data |= {"seat_id": seat.seat_id, "row_number": seat.row_number, "seat_number": seat.seat_number}
        data["message"] = self._format_message(verdict, seat, event)
        if verdict is ScanResult.DUPLICATE and scan.HasField("first_scanned_at"):
            data |= _describe_first_scan(scan, request)
        return data

    def _format_message(self, verdict: ScanResult, seat: pb.Seat | None, event: EventFacts | None) -> str:
        facts = {"row": seat.row_number, "number": seat.seat_number} if seat else {"row": "", "number": ""}
        if event is not None:
            opens_at = event.begins_at - (self._admission.opens_before or timedelta())
            facts |= {"hall": event.hall_id, "event": event.name}
            facts |= {"begin": _format_time(event.begins_at), "opens": _format_time(opens_at)}
        return MESSAGES[verdict].format(**facts)


def _format_time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _describe_first_scan(scan: pb.Scan, request: ScanRequest) -> Mapping[str, Any]:
    first = scan.first_scanned_at.ToDatetime(tzinfo=UTC)
    who = "by you" if scan.first_staff_id == str(request.staff_id) else "by another staff member"
    message = f"{MESSAGES[ScanResult.DUPLICATE]} First admitted at {first:%H:%M:%S} UTC {who}."
    return {"first_scanned_at": first, "message": message}


def _read_time(scan: pb.Scan) -> datetime:
    return scan.scanned_at.ToDatetime(tzinfo=UTC) if scan.HasField("scanned_at") else datetime.now(UTC)
