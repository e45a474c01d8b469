"""The business rules of a scan, in the order in which they are checked (§7). Pure functions.

QR cannot be read        QR_INVALID     checked before these rules
older than 60 s          EXPIRED        the leeway between two clocks is added to both limits
over 5 s in the future   QR_INVALID
no such seat             NOT_FOUND
HELD or AVAILABLE        UNPAID
CHECKED_IN               DUPLICATE
no CONFIRMED order       UNPAID
another owner            NOT_OWNER
another hall             WRONG_HALL
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

MESSAGES = {
    ScanResult.SUCCESS: "Welcome. Row {row}, seat {number}.",
    ScanResult.DUPLICATE: "Already Checked In.",
    ScanResult.UNPAID: "Incomplete Payment: this seat has no paid order.",
    ScanResult.NOT_FOUND: "Possible Counterfeit: this seat does not exist.",
    ScanResult.WRONG_HALL: "Go to {hall}.",
    ScanResult.EXPIRED: "Expired QR: the guest must refresh the ticket in the app.",
    ScanResult.NOT_OWNER: "This ticket was transferred. Only the QR code of its new owner is valid.",
    ScanResult.QR_INVALID: "This QR code is not a TicketRemaster ticket. The guest must refresh the ticket in the app.",
}


@dataclass(frozen=True)
class SeatFacts:
    """The facts from Inventory, Order and Event about the seat in the QR code."""

    status: SeatStatus
    owner_user_id: str
    has_confirmed_order: bool
    hall_id: str


def judge_age(ticket: Ticket, now: datetime) -> ScanResult | None:
    """Return EXPIRED or QR_INVALID when the QR code is too old or from the future, else None."""
    if now - ticket.generated_at > MAX_AGE:
        return ScanResult.EXPIRED
    if ticket.generated_at - now > MAX_AHEAD:
        return ScanResult.QR_INVALID
    return None


def judge_seat(ticket: Ticket, seat: SeatFacts, staff_hall: str) -> ScanResult | None:
    """Return the reason why this ticket does not admit at this hall, or None when Inventory can check it in."""
    if seat.status in (SeatStatus.HELD, SeatStatus.AVAILABLE):
        return ScanResult.UNPAID
    if seat.status is SeatStatus.CHECKED_IN:
        return ScanResult.DUPLICATE
    if not seat.has_confirmed_order:
        return ScanResult.UNPAID
    if str(ticket.user_id) != seat.owner_user_id:
        return ScanResult.NOT_OWNER
    if seat.hall_id != ticket.hall_id or seat.hall_id.casefold() != staff_hall.casefold():
        return ScanResult.WRONG_HALL
    return None
