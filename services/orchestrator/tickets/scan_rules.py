"""The business rules of a scan, in the order in which they are checked (§7). Pure functions.

QR cannot be read        QR_INVALID     checked before these rules
older than 60 s          EXPIRED        the leeway between two clocks is added to both limits
over 5 s in the future   QR_INVALID
no such seat             NOT_FOUND
HELD or AVAILABLE        UNPAID
CHECKED_IN               DUPLICATE
no CONFIRMED order       UNPAID
another owner            NOT_OWNER
event over               EVENT_OVER     the grace after its begin has passed
admission not open       TOO_EARLY      if a setting opens it
another hall             WRONG_HALL
another event            WRONG_EVENT    if the gate is set to one event
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.chassis.tokens import CLOCK_LEEWAY_SECONDS
from services.contracts.enums import ScanResult, SeatStatus
from services.orchestrator.tickets.qr import TTL_SECONDS, Ticket

# The orchestrator that made the QR code and the one that reads it have different clocks.
MAX_AHEAD = timedelta(seconds=5 + CLOCK_LEEWAY_SECONDS)
MAX_AGE = timedelta(seconds=TTL_SECONDS + CLOCK_LEEWAY_SECONDS)
# Event's database and this orchestrator have different clocks, too.
LEEWAY = timedelta(seconds=CLOCK_LEEWAY_SECONDS)

MESSAGES = {
    ScanResult.SUCCESS: "Welcome. Row {row}, seat {number}.",
    ScanResult.DUPLICATE: "Already Checked In.",
    ScanResult.UNPAID: "Incomplete Payment: this seat has no paid order.",
    ScanResult.NOT_FOUND: "Possible Counterfeit: this seat does not exist.",
    ScanResult.WRONG_HALL: "Go to {hall}.",
    ScanResult.EXPIRED: "Expired QR: the guest must refresh the ticket in the app.",
    ScanResult.NOT_OWNER: "This ticket was transferred. Only the QR code of its new owner is valid.",
    ScanResult.EVENT_OVER: "This event is over: {event}, {begin}.",
    ScanResult.TOO_EARLY: "Too early: admission to {event} opens {opens}.",
    ScanResult.WRONG_EVENT: "This ticket is for another event: {event}, {begin}.",
    ScanResult.QR_INVALID: "This QR code is not a TicketRemaster ticket. The guest must refresh the ticket in the app.",
}


@dataclass(frozen=True)
class EventFacts:
    """The event of the seat in the QR code."""

    event_id: str
    name: str
    hall_id: str
    begins_at: datetime


@dataclass(frozen=True)
class SeatFacts:
    """The facts from Inventory, Order and Event about the seat in the QR code."""

    status: SeatStatus
    owner_user_id: str
    has_confirmed_order: bool
    event: EventFacts


@dataclass(frozen=True)
class Gate:
    """The hall of the staff member's gate, and its event if the gate is set to one."""

    hall_id: str
    event_id: str = ""


@dataclass(frozen=True)
class Admission:
    """When an event admits: from `opens_before` its begin (None: from any time) until `grace` after its begin."""

    grace: timedelta = timedelta(hours=24)
    opens_before: timedelta | None = None

    def judge(self, event: EventFacts, now: datetime) -> ScanResult | None:
        """Return EVENT_OVER or TOO_EARLY outside of this time, else None."""
        if now - event.begins_at > self.grace + LEEWAY:
            return ScanResult.EVENT_OVER
        if self.opens_before is not None and event.begins_at - now > self.opens_before + LEEWAY:
            return ScanResult.TOO_EARLY
        return None


def judge_age(ticket: Ticket, now: datetime) -> ScanResult | None:
    """Return EXPIRED or QR_INVALID when the QR code is too old or from the future, else None."""
    if now - ticket.generated_at > MAX_AGE:
        return ScanResult.EXPIRED
    if ticket.generated_at - now > MAX_AHEAD:
        return ScanResult.QR_INVALID
    return None


def judge_seat(ticket: Ticket, seat: SeatFacts, gate: Gate, admission: Admission, now: datetime) -> ScanResult | None:
    """Return the reason why this ticket does not admit at this gate now, or None when Inventory can check it in."""
    if seat.status in (SeatStatus.HELD, SeatStatus.AVAILABLE):
        return ScanResult.UNPAID
    if seat.status is SeatStatus.CHECKED_IN:
        return ScanResult.DUPLICATE
    if not seat.has_confirmed_order:
        return ScanResult.UNPAID
    if str(ticket.user_id) != seat.owner_user_id:
        return ScanResult.NOT_OWNER
    return admission.judge(seat.event, now) or _judge_gate(ticket, seat.event, gate)


def _judge_gate(ticket: Ticket, event: EventFacts, gate: Gate) -> ScanResult | None:
    if event.hall_id != ticket.hall_id or event.hall_id.casefold() != gate.hall_id.casefold():
        return ScanResult.WRONG_HALL
    if gate.event_id and gate.event_id != event.event_id:
        return ScanResult.WRONG_EVENT
    return None
