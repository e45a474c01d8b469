"""Entries: the check-in of a seat and the log of every scan (D22, D23).

A scan is identified by staff member and scan_id. A retry of a scan returns its first answer, even a concurrent retry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from services.chassis.db import Database, Row, UniqueViolation
from services.chassis.errors import Refused, Unknown
from services.contracts.enums import ScanResult
from services.contracts.errors import ErrorCode
from services.inventory.store.sales import Ticket

# The entry of a scan. For a DUPLICATE it includes the first admission of the seat.
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
    seat_id, scan_id, scanned_by_staff_id, result, hall_id_presented, hall_id_expected, hall_id_staff, event_id_staff)
SELECT %(seat_id)s, %(scan_id)s, %(staff_id)s, {result}, %(hall_id_presented)s, %(hall_id_expected)s,
    %(hall_id_staff)s, %(event_id_staff)s
{source}
RETURNING seat_id, result, scanned_at, NULL::timestamptz AS first_scanned_at, NULL::uuid AS first_staff_id"""
_LOG_REFUSED = _LOG.format(result="%(result)s::scan_result", source="")

# The statement checks the seat again under its lock, because the seat may have changed after the gate read it.
# A seat with another order is free, held or sold again, so the sale that the gate saw is over.
_CHECK_IN = f"""
WITH seat AS MATERIALIZED (
    SELECT status, owner_user_id, order_id FROM seats WHERE seat_id = %(seat_id)s FOR UPDATE
),
judged AS (
    SELECT coalesce((SELECT CASE
        WHEN status = 'CHECKED_IN' THEN 'DUPLICATE'
        WHEN order_id IS DISTINCT FROM %(order_id)s THEN 'UNPAID'
        WHEN owner_user_id IS DISTINCT FROM %(expected_owner_id)s THEN 'NOT_OWNER'
        ELSE 'SUCCESS' END FROM seat), 'NOT_FOUND')::scan_result AS result
),
checked_in AS (
    UPDATE seats SET status = 'CHECKED_IN', updated_at = statement_timestamp()
    FROM judged WHERE seat_id = %(seat_id)s AND judged.result = 'SUCCESS'
),
logged AS ({_LOG.format(result="judged.result", source="FROM judged")})
SELECT * FROM logged"""


@dataclass(frozen=True)
class ScanFacts:
    """The staff member and scan_id of a scan, and three halls: of the QR code, the event and the staff member.

    `event_id_staff` is the event of the staff member's gate, if the gate is set to one.
    """

    scan_id: str
    staff_id: UUID
    hall_id_presented: str | None
    hall_id_expected: str | None
    hall_id_staff: str | None
    event_id_staff: UUID | None = None


def check_in(db: Database, ticket: Ticket, facts: ScanFacts) -> Row:
    """Admit the owner at most once. The seat and its SUCCESS entry change together. A refused scan writes an entry too.

    Raises Refused IDEMPOTENCY_KEY_REUSED if the scan_id belongs to another seat, and Unknown after a lost race.
    """
    return _once(db, ticket.seat_id, facts, lambda: db.statement(_CHECK_IN, **vars(ticket), **vars(facts)))


def log(db: Database, seat_id: UUID | None, result: ScanResult, facts: ScanFacts) -> Row:
    """Log a scan that the gate refused before the check-in. Raises the errors of `check_in`."""
    return _once(db, seat_id, facts, lambda: db.statement(_LOG_REFUSED, seat_id=seat_id, result=result, **vars(facts)))


def _once(db: Database, seat_id: UUID | None, facts: ScanFacts, scan: Callable[[], Row | None]) -> Row:
    """Run `scan` unless it ran before. Return its entry in both cases."""
    try:
        entry = scan()
    except UniqueViolation:  # a duplicate of this scan, or another admission, committed first
        entry = None
    if entry is None or entry["result"] == ScanResult.DUPLICATE:
        # A new statement, because the first admission may have committed after the snapshot of the scan.
        entry = db.statement(_ENTRY, staff_id=facts.staff_id, scan_id=facts.scan_id)
    if entry is None:
        raise Unknown("another gate admitted this seat at the same moment, so scan again")
    if entry["seat_id"] != seat_id:
        raise Refused(ErrorCode.IDEMPOTENCY_KEY_REUSED, "This scan_id belongs to another seat. Use a new one.")
    return entry
