"""Routes for the caller's own tickets and credits (§6 step 10, §7.1 refresh, §9 top-up)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import segno
from flask import Blueprint, Response, request

from services.chassis import web
from services.chassis.access import customer, identity, paying_customer
from services.chassis.errors import Refused
from services.contracts.enums import SeatStatus, TransferStatus
from services.contracts.errors import ErrorCode
from services.contracts.money import Amount
from services.contracts.pb import inventory_pb2 as pb
from services.orchestrator.api.context import ApiContext
from services.orchestrator.tickets.qr import TTL_SECONDS, SealedQr

PICTURES = {"image/svg+xml": "svg", "image/png": "png"}
NEWEST = 100


class TopUpBody(msgspec.Struct):
    amount: Amount


def blueprint(context: ApiContext) -> Blueprint:
    """Create the routes for the caller's own tickets and credits."""
    routes = Blueprint("account", __name__)

    @routes.get("/api/tickets")
    @customer
    def tickets() -> Response:
        user_id = str(identity().user_id)
        return web.ok(context.retry(lambda: list_tickets(context, user_id)))

    @routes.get("/api/tickets/<seat_id>/qr")
    @customer
    def refresh_qr(seat_id: str) -> Response:
        subject = str(web.as_id(seat_id))
        qr = context.retry(lambda: _create_qr(context, subject))
        wanted = request.accept_mimetypes.best_match(["application/json", *PICTURES], default="application/json")
        return _draw(qr, wanted) if wanted in PICTURES else web.ok(_show_qr(qr))

    @routes.get("/api/credits/balance")
    @customer
    def balance() -> Response:
        user_id = identity().user_id
        user = context.retry(lambda: context.participants.users.get(user_id))
        return web.ok({name: user[name] for name in ("user_id", "credit_balance", "frozen_credits")})

    @routes.post("/api/credits/topup")
    @paying_customer
    def top_up() -> Response:
        context.expensive_calls.count()
        amount = web.body(TopUpBody).amount
        user_id = identity().user_id

        def create(topup_id: UUID) -> Mapping[str, Any]:
            return context.participants.users.top_up(f"topup:{topup_id}:1:create_intent", user_id, amount)

        return web.ok(context.run_idempotently("topup", amount, create))

    return routes


def list_tickets(context: ApiContext, user_id: str) -> dict[str, Any]:
    """The tickets that a user owns, and those that they have sold. The number of calls does not depend on them."""
    completed = _list_completed_transfers(context, user_id)
    bought = {t["order_id"]: t["credits_amount"] for t in reversed(completed) if t["buyer_user_id"] == user_id}
    sales = [t for t in completed if t["seller_user_id"] == user_id]
    owned, sold = context.participants.inventory.list_tickets(user_id, {t["seat_id"] for t in sales})
    events = context.participants.events.get_all({seat.event_id for seat in (*owned, *sold)})
    places = {seat.seat_id: seat for seat in sold}
    return {
        "purchased": [_show_owned(seat, events[seat.event_id], bought.get(seat.order_id)) for seat in owned],
        "sold": [_show_sold(t, places[t["seat_id"]], events[places[t["seat_id"]].event_id]) for t in sales],
    }


def _list_completed_transfers(context: ApiContext, user_id: str) -> list[dict[str, Any]]:
    """Return the caller's transfers that changed the owner, newest first."""
    pages = (
        context.participants.orders.list_transfers(user_id=user_id, status=status, per_page=NEWEST)["data"]
        for status in (TransferStatus.COMPLETED, TransferStatus.DISPUTED)
    )
    return sorted((t for page in pages for t in page), key=lambda t: str(t["completed_at"]), reverse=True)[:NEWEST]


def _create_qr(context: ApiContext, seat_id: str) -> SealedQr:
    seat = context.participants.inventory.get_owner(seat_id)
    if seat.owner_user_id != str(identity().user_id):
        raise Refused(ErrorCode.NOT_SEAT_OWNER)
    if seat.status != SeatStatus.SOLD:
        raise Refused(ErrorCode.SEAT_UNAVAILABLE, "This ticket is already used. A used ticket has no QR code.")
    return context.participants.seal.seal(
        seat_id, seat.owner_user_id, context.participants.events.get(seat.event_id)["hall_id"]
    )


def _show_qr(qr: SealedQr) -> dict[str, Any]:
    moments = {"generated_at": qr.generated_at, "expires_at": qr.expires_at}
    return {"qr_payload": qr.payload, **moments, "ttl_seconds": TTL_SECONDS}


def _draw(qr: SealedQr, mimetype: str) -> Response:
    drawn = io.BytesIO()
    segno.make(qr.payload, micro=False).save(drawn, kind=PICTURES[mimetype], scale=6, border=4)
    return Response(drawn.getvalue(), content_type=mimetype)


def _show_owned(seat: pb.Seat, event: Mapping[str, Any], transfer_price: Any) -> dict[str, Any]:
    price = Decimal(seat.price_paid) if transfer_price is None else transfer_price
    sale = {"order_id": seat.order_id, "status": seat.status, "category": seat.category, "price": price}
    return {**_show_place(seat), **sale, "event": _show_event(event)}


def _show_sold(transfer: Mapping[str, Any], seat: pb.Seat, event: Mapping[str, Any]) -> dict[str, Any]:
    sale = {name: transfer[name] for name in ("transfer_id", "order_id", "status", "completed_at", "buyer_user_id")}
    return {**_show_place(seat), **sale, "price": transfer["credits_amount"], "event": _show_event(event)}


def _show_place(seat: pb.Seat) -> dict[str, Any]:
    return {"seat_id": seat.seat_id, "row_number": seat.row_number, "seat_number": seat.seat_number}


def _show_event(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: event[name] for name in ("event_id", "name", "event_date", "hall_id")}
