"""What the reference's compensation matrices (§5, §6, §7) say of an edge's failure, as it is implemented here.

A number D… is one of docs/departures.md.
"""

from __future__ import annotations

from collections.abc import Mapping

REFERENCE: Mapping[str, Mapping[str, str]] = {
    "reserve": {
        "inventory ReserveSeat": "§5 ReserveSeat fails: nothing to compensate, the client picks again",
        "order POST /orders": "D1 the order is created with the hold: FAILED, the seat given back",
        "broker publish": "§5 RabbitMQ TTL publish fails: ReleaseSeat → AVAILABLE, error to the client",
    },
    "reserve flagged": {
        "broker publish": "§5 RabbitMQ TTL publish fails: ReleaseSeat → AVAILABLE, error to the client",
        "user POST /otp/send": "§5 2a–2b User or SMU away: nothing stays held",
    },
    "pay": {
        "user POST /credits/deduct": "§5 credit deduction fails: the seat stays held until its TTL",
        "order PATCH /orders/{id}": "§5 order creation fails: credits refunded, seat stays held, INTERNAL_ERROR",
        "inventory ConfirmSeat": "§5 ConfirmSeat fails: credits refunded, order → FAILED, seat stays held,"
        " INTERNAL_ERROR; silence is settled first (D8)",
    },
    "verify-otp": {
        "user POST /otp/verify": "§5 OTP verification fails: the seat stays held, the user can retry;"
        " an attempt whose answer stays out is given back",
    },
    "refund": {
        "inventory CancelSale": "D10 nothing comes before the pivot: undone is as it was, and it can be asked for again"
    },
    "initiate": {
        "inventory GetSeatOwner": "§6 validation fails: error to the client, no side effects",
        "order POST /transfers": "§6 transfer record creation fails: INTERNAL_ERROR, no side effects",
        "user POST /otp/send": "§6 OTP send fails: transfer → FAILED",
        "user POST /otp/send#2": "§6 OTP send fails: transfer → FAILED",
    },
    "confirm": {
        "user POST /otp/verify": "§6 OTP verification fails (either party): retries are allowed",
        "user POST /otp/verify#2": "§6 OTP verification fails (either party): retries are allowed",
        "user POST /credits/freeze": "§6 credit transfer fails: transfer → FAILED, no ownership change",
        "inventory UpdateOwner": "§6 UpdateOwner fails: credits back to the buyer, transfer → FAILED; silence is"
        " settled first (D8)",
        "order PATCH /transfers/{id}": "§6 transfer status update fails: consistent already, finished by recovery",
    },
    "dispute": {"order POST /transfers/{id}/dispute": "§6 fraud or phishing flag: DISPUTED, credits frozen"},
    "reverse": {
        "inventory UpdateOwner": "§6 reverse: the owner is the seller again, credits back to the buyer; all or nothing"
    },
    "dismiss": {"order PATCH /transfers/{id}": "D18 the dispute is dismissed: COMPLETED, the freeze lifted"},
    "verify": {
        "order GET /orders": "§7 any downstream call fails: SERVICE_UNAVAILABLE, staff scan again",
        "inventory VerifyTicket": "§7 any downstream call fails: SERVICE_UNAVAILABLE, staff scan again",
        "event GET /events/{id}": "§7 any downstream call fails: SERVICE_UNAVAILABLE, staff scan again",
        "inventory MarkCheckedIn": "§7 MarkCheckedIn fails: error to staff, who scan again; the seat stays SOLD, or the"
        " same scan finds that it was admitted",
    },
}
