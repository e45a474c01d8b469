"""Which row of the reference's compensation matrices a cell of the fault matrix is: the claims of `test_cell`."""

from __future__ import annotations

ROWS = {  # flow, edge (with all its numbered repetitions): claim
    ("reserve", "inventory ReserveSeat"): "reserve/seat-unavailable",
    ("reserve", "broker publish"): "reserve/releases-when-publish-fails",
    ("reserve flagged", "broker publish"): "reserve/releases-when-publish-fails",
    ("pay", "order PATCH /orders/{id}"): "pay/refunds-when-order-refused",
    ("reserve", "order POST /orders"): "pay/refunds-when-order-refused",
    ("pay", "inventory ConfirmSeat"): "pay/refunds-when-seat-refused",
    ("verify-otp", "user POST /otp/verify"): "otp/three-tries-for-purchase",
    ("initiate", "order POST /transfers"): "transfer/failed-record-changes-nothing",
    ("initiate", "user POST /otp/send"): "transfer/fails-without-codes",
    ("confirm", "user POST /otp/verify"): "transfer/three-tries-for-codes",
    ("confirm", "user POST /credits/freeze"): "transfer/fails-without-credits",
    ("confirm", "inventory UpdateOwner"): "transfer/refunds-when-owner-refused",
    ("confirm", "user POST /credits/transfer"): "transfer/recovers-status-write",
    ("confirm", "order PATCH /transfers/{id}"): "transfer/recovers-status-write",
    ("dispute", "user POST /credits/freeze"): "dispute/freezes-credits",
    ("reverse", "inventory UpdateOwner"): "reverse/returns-seat-and-credits",
    ("verify", "inventory VerifyTicket"): "gate/outage-changes-nothing",
    ("verify", "event GET /events/{id}"): "gate/outage-changes-nothing",
    ("verify", "order GET /orders"): "gate/outage-changes-nothing",
    ("verify", "inventory MarkCheckedIn"): "gate/failed-check-in-keeps-sold",
}


def claims_of(flow: str, edge: str) -> list[str]:
    """The rows that a fault at this edge of this flow is about."""
    row = ROWS.get((flow, edge.partition("#")[0]))
    return [row] if row else []
