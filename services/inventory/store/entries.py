"""Who entered: the seat's check-in and the log of every scan (D22, D23 of the decisions).

A scan is named by staff member and scan_id. Asked again, also at the same moment, it gets its first answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from services.chassis.db import AlreadyThere, Database, Row, Transaction
from services.chassis.errors import Refused, Unknown
from services.contracts.enums import ScanResult, SeatStatus
from services.contracts.errors import ErrorCode
from services.inventory.store.sales import Ticket

# With the first admission of the same seat, which is what a DUPLICATE's answer is about.
_ENTRY = """
SELECT entry.seat_id, entry.result, entry.scanned_at,
       first.scanned_at AS first_scanned_at, first.scanned_by_staff_id AS first_staff_id
FROM entry_logs AS entry
LEFT JOIN entry_logs AS first
    ON first.seat_id = entry.seat_id AND first.result = 'SUCCESS' AND entry.result = 'DUPLICATE'
WHERE entry.scanned_by_staff_id = %(staff_id)s AND entry.scan_id = %(scan_id)s
"""
_LOG = """
INSERT INTO entry_logs (
    seat_id, scan_id, scanned_by_staff_id, result, hall_id_presented, hall_id_expected, hall_id_staff)
VALUES (
    %(seat_id)s, %(scan_id)s, %(staff_id)s, %(result)s,
    %(hall_id_presented)s, %(hall_id_expected)s, %(hall_id_staff)s)
"""
_LOCK = "SELECT status, owner_user_id, order_id FROM seats WHERE seat_id = %(seat_id)s FOR UPDATE"
_CHECK_IN = "UPDATE seats SET status = 'CHECKED_IN', updated_at = statement_timestamp() WHERE seat_id = %(seat_id)s"


@dataclass(frozen=True)
class Facts:
    """Who scanned, and the halls in question: the QR's, the event's, the staff member's (None: not known)."""

    scan_id: str
    staff_id: UUID
    hall_id_presented: str | None
    hall_id_expected: str | None
    hall_id_staff: str | None


def check_in(db: Database, ticket: Ticket, facts: Facts) -> Row:
    """Admit the owner, once: seat and SUCCESS entry change together, or the entry says why not.

    Raises Refused IDEMPOTENCY_KEY_REUSED when the scan_id stands for another seat.
    """

    def scan(tx: Transaction) -> None:
        result = _judge(tx.one(_LOCK, seat_id=ticket.seat_id), ticket)
        if result is ScanResult.SUCCESS:
            tx.run(_CHECK_IN, seat_id=ticket.seat_id)
        _log(tx, ticket.seat_id, result, facts)

    return _once(db, ticket.seat_id, facts, scan)


def log(db: Database, seat_id: UUID | None, result: ScanResult, facts: Facts) -> Row:
    """Log a scan that was refused before it came to the seat. Raises as `check_in` does."""
    return _once(db, seat_id, facts, lambda tx: _log(tx, seat_id, result, facts))


def _judge(seat: Row | None, ticket: Ticket) -> ScanResult:
    """What the gate's own look-up may have missed: the seat is judged again under its lock."""
    if seat is None:
        return ScanResult.NOT_FOUND
    if seat["status"] == SeatStatus.CHECKED_IN:
        return ScanResult.DUPLICATE
    if seat["order_id"] != ticket.order_id:  # free, held, or sold anew: the sale that the gate saw is no more
        return ScanResult.UNPAID
    return ScanResult.SUCCESS if seat["owner_user_id"] == ticket.expected_owner_id else ScanResult.NOT_OWNER


def _log(tx: Transaction, seat_id: UUID | None, result: ScanResult, facts: Facts) -> None:
    tx.run(_LOG, seat_id=seat_id, result=result, **vars(facts))


def _once(db: Database, seat_id: UUID | None, facts: Facts, scan: Callable[[Transaction], None]) -> Row:
    """Run `scan` unless it ran before; the entry that it left either way."""
    try:
        with db.transaction() as tx:
            scan(tx)
            entry = _entry(tx, facts)
    except AlreadyThere:  # the same scan's twin committed first
        with db.transaction() as tx:
            entry = _entry(tx, facts)
    if entry is None:
        raise Unknown("another gate admitted this seat at the same moment; ask again")
    if entry["seat_id"] != seat_id:
        raise Refused(ErrorCode.IDEMPOTENCY_KEY_REUSED, "This scan_id stands for another seat; use a new one.")
    return entry


def _entry(tx: Transaction, facts: Facts) -> Row | None:
    return tx.one(_ENTRY, staff_id=facts.staff_id, scan_id=facts.scan_id)
