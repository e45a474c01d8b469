"""Status values in the databases and on the wire.

They are those of section 3 of the v4 reference. A comment marks each value that section 3 lacks.
"""

from __future__ import annotations

from enum import StrEnum


class SeatStatus(StrEnum):
    AVAILABLE = "AVAILABLE"
    HELD = "HELD"
    SOLD = "SOLD"
    CHECKED_IN = "CHECKED_IN"


class OrderStatus(StrEnum):
    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    FAILED = "FAILED"
    REFUNDED = "REFUNDED"


class TransferStatus(StrEnum):
    INITIATED = "INITIATED"
    PENDING_OTP = "PENDING_OTP"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"  # named in section 6 of the reference, missing in section 3
    DISPUTED = "DISPUTED"
    REVERSED = "REVERSED"


class ScanResult(StrEnum):
    SUCCESS = "SUCCESS"
    DUPLICATE = "DUPLICATE"
    WRONG_HALL = "WRONG_HALL"
    UNPAID = "UNPAID"
    NOT_FOUND = "NOT_FOUND"
    EXPIRED = "EXPIRED"
    NOT_OWNER = "NOT_OWNER"  # section 7.1: a QR of the previous owner, shown after a transfer
    QR_INVALID = "QR_INVALID"  # section 7: an unreadable QR is logged for audit
    EVENT_OVER = "EVENT_OVER"  # departure D62: a ticket of an event that ended
    TOO_EARLY = "TOO_EARLY"  # departure D62: admission to the event is not open yet
    WRONG_EVENT = "WRONG_EVENT"  # departure D63: another event in the hall of this gate


class Role(StrEnum):
    CUSTOMER = "customer"
    STAFF = "staff"


class StaffArea(StrEnum):
    """The area to which an account of staff may be limited. The reference has no limit."""

    GATE = "gate"
    SUPPORT = "support"
    FINANCE = "finance"


class OtpStatus(StrEnum):
    """The status of a one-time password (OTP).

    SMU, Singapore Management University's notification API, returns it.
    """

    APPROVED = "approved"
    PENDING = "pending"
    EXPIRED = "expired"
