"""Statuses as they stand in the databases and on the wire (reference §3, with what it lacks added)."""

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
    FAILED = "FAILED"  # the reference names it in §6 and leaves it out of §3's enum
    DISPUTED = "DISPUTED"
    REVERSED = "REVERSED"


class ScanResult(StrEnum):
    SUCCESS = "SUCCESS"
    DUPLICATE = "DUPLICATE"
    WRONG_HALL = "WRONG_HALL"
    UNPAID = "UNPAID"
    NOT_FOUND = "NOT_FOUND"
    EXPIRED = "EXPIRED"
    NOT_OWNER = "NOT_OWNER"  # §7.1: the old owner's QR after a transfer
    QR_INVALID = "QR_INVALID"  # §7: "log for audit"


class Role(StrEnum):
    CUSTOMER = "customer"
    STAFF = "staff"


class OtpStatus(StrEnum):
    """SMU's answer to a code (§9)."""

    APPROVED = "approved"
    PENDING = "pending"
    EXPIRED = "expired"
