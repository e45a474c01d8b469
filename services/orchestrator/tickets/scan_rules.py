"""The gate's business rules, pure: what a scan comes to, in the order in which it is decided (§7).

QR cannot be read        QR_INVALID     before these rules: there is nothing to judge
older than 60 s          EXPIRED
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

from services.contracts.enums import ScanResult, SeatStatus
from services.orchestrator.tickets.qr import TTL_SECONDS, Ticket

MAX_AHEAD = timedelta(seconds=5)  # clocks of two orchestrators may differ by this much
MAX_AGE = timedelta(seconds=TTL_SECONDS)

MESSAGES = {
    ScanResult.SUCCESS: "Welcome. Row {row}, seat {number}.",
    ScanResult.DUPLICATE: "Already Checked In.",
    ScanResult.UNPAID: "Incomplete Payment: this seat has no paid order.",
    ScanResult.NOT_FOUND: "Possible Counterfeit: there is no such seat.",
    ScanResult.WRONG_HALL: "Go to {hall}.",
    ScanResult.EXPIRED: "Expired QR: ask the guest to refresh the ticket.",
    ScanResult.NOT_OWNER: "This ticket was transferred: only its new owner's QR admits.",
    ScanResult.QR_INVALID: "This QR code is not one of ours; ask the guest to refresh the ticket.",
}


@dataclass(frozen=True)
class SeatFacts:
    """What Inventory, Order and Event say of the seat in the QR."""

    status: SeatStatus
    owner_user_id: str
    has_confirmed_order: bool
    hall_id: str


def judge_age(ticket: Ticket, now: datetime) -> ScanResult | None:
    """Too old, or from the future; None when the QR's time is right."""
    if now - ticket.generated_at > MAX_AGE:
        return ScanResult.EXPIRED
    if ticket.generated_at - now > MAX_AHEAD:
        return ScanResult.QR_INVALID
    return None


def judge_seat(ticket: Ticket, seat: SeatFacts, staff_hall: str) -> ScanResult | None:
    """Why this seat does not admit this guest here; None when Inventory may be asked to admit."""
    if seat.status in (SeatStatus.HELD, SeatStatus.AVAILABLE):
        return ScanResult.UNPAID
    if seat.status is SeatStatus.CHECKED_IN:
        return ScanResult.DUPLICATE
    if not seat.has_confirmed_order:
        return ScanResult.UNPAID
    if str(ticket.user_id) != seat.owner_user_id:
        return ScanResult.NOT_OWNER
    if seat.hall_id != ticket.hall_id or seat.hall_id != staff_hall:
        return ScanResult.WRONG_HALL
    return None
