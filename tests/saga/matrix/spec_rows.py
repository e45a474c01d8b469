"""The rows of the reference's compensation matrices (§5, §6, §7), by flow and edge of the fault matrix.

A row is a claim, and its only wording is in `tests/claims/claims.toml`. A number such as D10 is a row of
`docs/departures.md`, for an edge that the reference does not describe. An edge stands for its repetitions (`#2`) too.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.report import claims

Edge = tuple[str, str]  # flow of the fault matrix, edge without its number

ROWS: Mapping[Edge, str] = {
    ("reserve", "inventory ReserveSeat"): "reserve/seat-unavailable",
    ("reserve", "order POST /orders"): "pay/refunds-when-order-refused",
    ("reserve", "broker publish"): "reserve/releases-when-publish-fails",
    ("reserve flagged", "broker publish"): "reserve/releases-when-publish-fails",
    ("pay", "order PATCH /orders/{id}"): "pay/refunds-when-order-refused",
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
"""The row that the cells of an edge prove: each cell of the edge carries this claim."""

RELATED: Mapping[Edge, str] = {
    ("pay", "user POST /credits/deduct"): "pay/keeps-hold-without-credits",
    ("refund", "inventory CancelSale"): "D10",
    ("initiate", "inventory GetSeatOwner"): "transfer/failed-validation-changes-nothing",
    ("dispute", "order POST /transfers/{id}/dispute"): "dispute/freezes-credits",
    ("dismiss", "order PATCH /transfers/{id}"): "D18",
    ("verify", "inventory MarkCheckedIn"): "gate/failed-entry-is-logged",
}
"""A row or departure about an edge that other tests prove, because it needs a refusal and not a fault."""

EDGES: Mapping[Edge, tuple[str, ...]] = {
    ("reserve", "reserve_seat"): ("inventory ReserveSeat",),
    ("reserve again", "replace_failed_hold"): ("order GET /orders/{id}", "inventory ReserveSeat#2"),
    ("reserve", "price_seat"): ("event GET /events/{id}", "user GET /users/{id}/risk"),
    ("reserve", "create_order"): ("order POST /orders",),
    ("reserve", "publish_hold_message"): ("broker publish",),
    ("reserve flagged", "send_otp"): ("user POST /otp/send", "order PATCH /orders/{id}"),
    ("pay", "deduct_credits"): ("user POST /credits/deduct",),
    ("pay", "confirm_order"): ("order PATCH /orders/{id}",),
    ("pay", "confirm_seat"): ("inventory ConfirmSeat",),
    ("refund", "cancel_sale"): ("inventory CancelSale",),
    ("refund", "refund_charge"): ("user POST /credits/refund",),
    ("refund", "mark_refunded"): ("order PATCH /orders/{id}",),
    ("initiate", "check_buyers_credits"): ("user POST /credits/check",),
    ("initiate", "create_transfer"): ("order POST /transfers",),
    ("initiate", "send_otps"): ("user POST /otp/send", "user POST /otp/send#2", "order PATCH /transfers/{id}"),
    ("confirm", "hold_buyers_credits"): ("user POST /credits/freeze",),
    ("confirm", "update_owner"): ("inventory UpdateOwner",),
    ("confirm", "pay_seller"): ("user POST /credits/transfer",),
    ("confirm", "complete_transfer"): ("order PATCH /transfers/{id}",),
    ("dispute", "dispute_transfer"): ("order POST /transfers/{id}/dispute",),
    ("dispute", "freeze_what_is_left"): ("user POST /credits/freeze",),
    ("dispute", "record_freeze"): ("order PATCH /transfers/{id}",),
    ("reverse", "freeze_the_rest"): (),  # the dispute of the fault matrix has frozen the whole amount
    ("reverse", "restore_owner"): ("inventory UpdateOwner",),
    ("reverse", "pay_buyer_back"): ("user POST /credits/transfer",),
    ("reverse", "mark_reversed"): ("order PATCH /transfers/{id}",),
    ("dismiss", "dismiss_dispute"): ("order PATCH /transfers/{id}",),
    ("dismiss", "unfreeze_dispute"): ("user POST /credits/unfreeze",),
}
"""The edges that a step of a saga makes on the wire, by flow of the fault matrix and name of the step."""


def claims_of(flow: str, edge: str) -> list[str]:
    """The claims that a cell at this edge carries."""
    row = ROWS.get((flow, edge.partition("#")[0]))
    return [row] if row else []


def describe_row(flow: str, edge: str) -> str:
    """Return the sentence of the row or departure about this edge, or an empty text."""
    at = flow, edge.partition("#")[0]
    name = ROWS.get(at) or RELATED.get(at, "")
    if departure := claims.read_departures().get(name):
        return f"{name}: {departure.here}"
    claim = claims.read_claims().get(name)
    return f"§{claim.section} {claim.text}" if claim else ""
