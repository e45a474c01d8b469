"""A scan at the gate: read in two branches, judge, admit, and log whatever came of it (§7).

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
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from services.chassis.errors import Refused, Unknown
from services.contracts.enums import OrderStatus, ScanResult, SeatStatus
from services.contracts.errors import ErrorCode
from services.contracts.pb import inventory_pb2 as pb
from services.orchestrator.participants import Participants
from services.orchestrator.saga.retry import ask
from services.orchestrator.tickets.qr import Ticket
from services.orchestrator.tickets.scan_rules import MESSAGES, SeatFacts, judge_age, judge_seat

logger = logging.getLogger(__name__)
BRANCH_THREADS = 32
T = TypeVar("T")


@dataclass(frozen=True)
class ScanRequest:
    """Who scans what, where. `scan_id` makes it safe to ask again."""

    scan_id: UUID
    staff_id: UUID
    hall_id: str
    qr_payload: str

    def facts(self, presented: str = "", expected: str = "") -> pb.ScanFacts:
        """What goes into the entry log: staff and all three halls."""
        return pb.ScanFacts(
            scan_id=str(self.scan_id),
            staff_id=str(self.staff_id),
            hall_id_presented=presented,
            hall_id_expected=expected,
            hall_id_staff=self.hall_id,
        )


class Gate:
    """Judges scans."""

    def __init__(self, participants: Participants, ask_seconds: float) -> None:
        self._to = participants
        self._ask_seconds = ask_seconds
        self._branches = ThreadPoolExecutor(BRANCH_THREADS, "gate")

    def scan(self, request: ScanRequest) -> Mapping[str, Any]:
        """What came of it; a refused scan is an answer, not an error.

        Raises Refused QR_INVALID for what cannot be read; Unknown when a service does not answer: scan again.
        """
        try:
            ticket = self._to.seal.open(request.qr_payload)
        except Refused:
            self._log("", ScanResult.QR_INVALID, request.facts())
            raise
        return self._judged(request, ticket)

    def _judged(self, request: ScanRequest, ticket: Ticket) -> Mapping[str, Any]:
        seat_id = str(ticket.seat_id)
        if verdict := judge_age(ticket, datetime.now(UTC)):
            return self._refused(request, ticket, verdict)
        try:
            seat, order_id, hall_id = self._look_up(seat_id)
        except Refused as refusal:
            if refusal.code is ErrorCode.SEAT_NOT_FOUND:
                return self._refused(request, ticket, ScanResult.NOT_FOUND)
            raise
        facts = SeatFacts(SeatStatus(seat.status), seat.owner_user_id, order_id == seat.order_id != "", hall_id)
        if verdict := judge_seat(ticket, facts, request.hall_id):
            return self._refused(request, ticket, verdict, seat, hall_id)
        return self._admitted(request, ticket, seat, hall_id)

    def _look_up(self, seat_id: str) -> tuple[pb.Seat, str, str]:
        context = contextvars.copy_context()
        order = self._branches.submit(context.run, self._confirmed_order, seat_id)
        seat = self._ask(lambda: self._to.inventory.ticket(seat_id))
        hall_id = self._ask(lambda: self._to.events.get(seat.event_id))["hall_id"]
        return seat, order.result(), str(hall_id)

    def _confirmed_order(self, seat_id: str) -> str:
        # Two a page, though a seat has one sale: a page that is not full is the last, and nothing is counted for it.
        page = self._ask(lambda: self._to.orders.page(seat_id=seat_id, status=OrderStatus.CONFIRMED, per_page=2))
        found = page["data"]
        return str(found[0]["order_id"]) if found else ""

    def _admitted(self, request: ScanRequest, ticket: Ticket, seat: pb.Seat, hall_id: str) -> Mapping[str, Any]:
        facts = request.facts(ticket.hall_id, hall_id)
        owner = str(ticket.user_id)
        scan = self._ask(lambda: self._to.inventory.check_in(seat.seat_id, seat.order_id, owner, facts))
        return _answer(ScanResult(scan.result), scan, seat, hall_id, request)

    def _ask(self, call: Callable[[], T]) -> T:
        return ask(call, time.monotonic() + self._ask_seconds)

    def _refused(
        self,
        request: ScanRequest,
        ticket: Ticket,
        verdict: ScanResult,
        seat: pb.Seat | None = None,
        hall_id: str = "",
    ) -> Mapping[str, Any]:
        if verdict is ScanResult.QR_INVALID:
            self._log(str(ticket.seat_id), verdict, request.facts(ticket.hall_id))
            raise Refused(ErrorCode.QR_INVALID)
        scan = self._log(str(ticket.seat_id), verdict, request.facts(ticket.hall_id, hall_id))
        if scan.result == ScanResult.SUCCESS and seat is None:  # asked again, and by now its QR has aged
            seat = self._ask(lambda: self._to.inventory.ticket(str(ticket.seat_id)))
        return _answer(verdict, scan, seat, hall_id, request)

    def _log(self, seat_id: str, result: ScanResult, facts: pb.ScanFacts) -> pb.Scan:
        try:
            return self._ask(lambda: self._to.inventory.log_entry(seat_id, result, facts))
        except Unknown:
            if result in (ScanResult.DUPLICATE, ScanResult.EXPIRED):
                raise  # it may be this very scan, asked again, that was admitted: only the log can tell
            # not critical (§7): the guest was refused all the same
            logger.error("entry log of a %s scan is missing: seat %s scan %s", result, seat_id, facts.scan_id)
            return pb.Scan(result=result)


def _answer(
    verdict: ScanResult, scan: pb.Scan, seat: pb.Seat | None, hall_id: str, request: ScanRequest
) -> Mapping[str, Any]:
    verdict = ScanResult(scan.result or verdict)
    answer: dict[str, Any] = {"result": verdict, "scanned_at": _moment(scan)}
    if seat is not None:
        answer |= {"seat_id": seat.seat_id, "row_number": seat.row_number, "seat_number": seat.seat_number}
    answer["message"] = _message(verdict, seat, hall_id)
    if verdict is ScanResult.DUPLICATE and scan.HasField("first_scanned_at"):
        answer |= _first_time(scan, request)
    return answer


def _message(verdict: ScanResult, seat: pb.Seat | None, hall_id: str) -> str:
    row, number = (seat.row_number, seat.seat_number) if seat else ("", "")
    return MESSAGES[verdict].format(row=row, number=number, hall=hall_id)


def _first_time(scan: pb.Scan, request: ScanRequest) -> Mapping[str, Any]:
    first = scan.first_scanned_at.ToDatetime(tzinfo=UTC)
    who = "by you" if scan.first_staff_id == str(request.staff_id) else "by another staff member"
    message = f"{MESSAGES[ScanResult.DUPLICATE]} First admitted at {first:%H:%M:%S} UTC {who}."
    return {"first_scanned_at": first, "message": message}


def _moment(scan: pb.Scan) -> datetime:
    return scan.scanned_at.ToDatetime(tzinfo=UTC) if scan.HasField("scanned_at") else datetime.now(UTC)
