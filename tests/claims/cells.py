"""Which row of the reference's compensation matrices a cell of the fault matrix is: the claims of `test_cell`."""

from __future__ import annotations

ROWS = {  # flow, edge (with all its numbered repetitions): claim
    ("reserve", "inventory ReserveSeat"): "5.matrix.1",
    ("reserve", "broker publish"): "5.matrix.2",
    ("reserve flagged", "broker publish"): "5.matrix.2",
    ("pay", "order PATCH /orders/{id}"): "5.matrix.4",
    ("reserve", "order POST /orders"): "5.matrix.4",
    ("pay", "inventory ConfirmSeat"): "5.matrix.5",
    ("verify-otp", "user POST /otp/verify"): "5.matrix.6",
    ("initiate", "order POST /transfers"): "6.matrix.2",
    ("initiate", "user POST /otp/send"): "6.matrix.3",
    ("confirm", "user POST /otp/verify"): "6.matrix.4",
    ("confirm", "user POST /credits/freeze"): "6.matrix.5",
    ("confirm", "inventory UpdateOwner"): "6.matrix.6",
    ("confirm", "user POST /credits/transfer"): "6.matrix.7",
    ("confirm", "order PATCH /transfers/{id}"): "6.matrix.7",
    ("dispute", "user POST /credits/freeze"): "6.failures.6",
    ("reverse", "inventory UpdateOwner"): "6.failures.7",
    ("verify", "inventory VerifyTicket"): "7.matrix.2",
    ("verify", "event GET /events/{id}"): "7.matrix.2",
    ("verify", "order GET /orders"): "7.matrix.2",
    ("verify", "inventory MarkCheckedIn"): "7.matrix.3",
}


def claims_of(flow: str, edge: str) -> list[str]:
    """The rows that a fault at this edge of this flow is about."""
    row = ROWS.get((flow, edge.partition("#")[0]))
    return [row] if row else []
