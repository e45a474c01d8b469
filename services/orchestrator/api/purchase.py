"""Routes of scenario 1 (§5): reserve, verify a code, pay, list orders, and the refund by staff."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import msgspec
from flask import Blueprint, Response

from services.chassis import web
from services.chassis.access import customer, finance_staff, identity, paying_customer, signed_in
from services.chassis.errors import Refused
from services.contracts.enums import OrderStatus
from services.contracts.errors import ErrorCode
from services.orchestrator.api.context import ApiContext
from services.orchestrator.saga.flows import PAY, REFUND, RESERVE
from services.orchestrator.tickets.otp import read_otp_code

OtpCode = Annotated[str, msgspec.Meta(max_length=64)]


class ReserveBody(msgspec.Struct):
    seat_id: UUID
    user_id: UUID | None = None


class PayBody(msgspec.Struct):
    order_id: UUID


class VerifyOtpBody(msgspec.Struct):
    otp_code: OtpCode
    order_id: UUID | None = None

    def __post_init__(self) -> None:
        self.otp_code = read_otp_code(self.otp_code)


def blueprint(context: ApiContext) -> Blueprint:
    """Create the routes of scenario 1."""
    routes = Blueprint("purchase", __name__)

    @routes.post("/api/reserve")
    @paying_customer
    def reserve() -> Response:
        context.expensive_calls.count()
        body = web.body(ReserveBody)
        context.require_self(body.user_id)
        seat_id, user_id = str(body.seat_id), str(identity().user_id)

        def reserve_alone(order_id: UUID) -> Mapping[str, Any]:
            return _reserve(context, order_id, body.seat_id)

        def reserve_coalesced(order_id: UUID) -> Mapping[str, Any]:
            return context.coalescer.join(seat_id, user_id, str(order_id), lambda: reserve_alone(order_id))

        # A retry whose order may already exist bypasses request coalescing.
        reserved = context.run_idempotently(
            RESERVE.flow, seat_id, reserve_coalesced, resume=reserve_alone, is_saga=True
        )
        return web.ok(_pick(RESERVE.result_fields, reserved, but="event_id"))

    @routes.post("/api/pay")
    @paying_customer
    def pay() -> Response:
        order_id = web.body(PayBody).order_id
        given = {"order_id": str(order_id), "user_id": str(identity().user_id)}
        paid = context.runner.run(PAY, order_id, given, caller=identity().user_id)
        return web.ok({**_pick(PAY.result_fields, paid, but="event_id"), **context.get_booking_qr(paid)})

    @routes.post("/api/verify-otp")
    @paying_customer
    def verify_otp() -> Response:
        context.expensive_calls.count()
        body = web.body(VerifyOtpBody)
        order_id = body.order_id or context.find_order_awaiting_code()
        context.get_own_order(order_id)
        context.otp.verify(f"orders/{order_id}", body.otp_code, str(identity().user_id))
        return web.ok({"verified": True, "order_id": order_id})

    @routes.get("/api/orders")
    @customer
    def orders() -> Response:
        page, per_page = web.page()
        query = {"user_id": identity().user_id, "page": page, "per_page": per_page}
        found = context.retry(lambda: context.participants.orders.list_orders(**query))
        return web.ok([_show_order(order) for order in found["data"]], pagination=found["pagination"])

    @routes.get("/api/orders/<order_id>")
    @signed_in
    def order(order_id: str) -> Response:
        return web.ok(_show_order(context.get_readable_order(web.as_id(order_id))))

    @routes.post("/api/orders/<order_id>/refund")
    @finance_staff
    def refund(order_id: str) -> Response:
        subject = web.as_id(order_id)
        return web.ok(_pick(REFUND.result_fields, context.run_for_staff(REFUND, subject, {"order_id": str(subject)})))

    return routes


def _reserve(context: ApiContext, order_id: UUID, seat_id: UUID) -> Mapping[str, Any]:
    user_id = identity().user_id
    given = {
        "order_id": str(order_id),
        "seat_id": str(seat_id),
        "user_id": str(user_id),
        "ttl_seconds": context.settings.hold_ttl_seconds,
    }
    return context.runner.run(RESERVE, order_id, given, caller=user_id)


def _pick(names: tuple[str, ...], result: Mapping[str, Any], but: str = "") -> dict[str, Any]:
    return {name: result[name] for name in names if name != but}


_PUBLIC = (
    "order_id",
    "seat_id",
    "event_id",
    "status",
    "credits_charged",
    "expires_at",
    "otp_required",
    "created_at",
    "confirmed_at",
)


def _show_order(order: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: order.get(name) for name in _PUBLIC}
    shown["otp_verified"] = order.get("otp_verified_at") is not None
    return shown


def refuse_unless_awaiting_code(order: Mapping[str, Any]) -> None:
    """Raise Refused when this order does not wait for a code."""
    if order["status"] == OrderStatus.CONFIRMED or order["otp_verified_at"] or not order["otp_required"]:
        raise Refused(
            ErrorCode.ORDER_ALREADY_CONFIRMED, "This order does not wait for a code. Pay it, or see your tickets."
        )
    if order["status"] != OrderStatus.PENDING or order["is_expired"]:
        raise Refused(ErrorCode.ORDER_FAILED)
