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
        return web.ok(context.retry(lambda: _list_tickets(context, user_id)))

    @routes.get("/api/tickets/<seat_id>/qr")
    @customer
    def refresh_qr(seat_id: str) -> Response:
        subject = str(web.as_id(seat_id))
        qr = context.retry(lambda: _create_qr(context, subject))
        wanted = request.accept_mimetypes.best_match(["application/json", *PICTURES], default="application/json")
        return _draw(qr, wanted) if wanted in PICTURES else web.ok(_show_qr(qr), headers=NO_STORE)

    @routes.get("/api/credits/balance")
    @customer
    def balance() -> Response:
        user_id = identity().user_id
        user = context.retry(lambda: context.participants.users.get(user_id))
        return web.ok({name: user[name] for name in ("user_id", "credit_balance", "frozen_credits")})

    @routes.post("/api/credits/topup")
    @paying_customer
    def top_up() -> Response:
        amount = web.body(TopUpBody).amount
        user_id = identity().user_id

        def create(topup_id: UUID) -> Mapping[str, Any]:
            return context.participants.users.top_up(f"topup:{topup_id}:1:create_intent", user_id, amount)

        return web.ok(context.run_idempotently("topup", amount, create))

    return routes


def _list_tickets(context: ApiContext, user_id: str) -> dict[str, Any]:
    completed = _list_completed_transfers(context, user_id)
    bought = {t["order_id"]: t["credits_amount"] for t in reversed(completed) if t["buyer_user_id"] == user_id}
    seats = context.participants.inventory.list_tickets(user_id)
    owned = [_show_owned(context, seat, bought.get(seat.order_id)) for seat in seats]
    sold = [_show_sold(context, t) for t in completed if t["seller_user_id"] == user_id]
    return {"purchased": owned, "sold": sold}


def _list_completed_transfers(context: ApiContext, user_id: str) -> list[dict[str, Any]]:
    """Return the caller's transfers that changed the owner, newest first."""
    pages = (
        context.participants.orders.list_transfers(user_id=user_id, status=status, per_page=NEWEST)["data"]
        for status in (TransferStatus.COMPLETED, TransferStatus.DISPUTED)
    )
    return sorted((t for page in pages for t in page), key=lambda t: str(t["completed_at"]), reverse=True)[:NEWEST]


NO_STORE = {"Cache-Control": "no-store"}  # a cached ticket could be read by another user


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
    return Response(drawn.getvalue(), content_type=mimetype, headers=NO_STORE)


def _show_owned(context: ApiContext, seat: pb.Seat, transfer_price: Any) -> dict[str, Any]:
    price = Decimal(seat.price_paid) if transfer_price is None else transfer_price
    place = {"seat_id": seat.seat_id, "row_number": seat.row_number, "seat_number": seat.seat_number}
    sale = {"order_id": seat.order_id, "status": seat.status, "category": seat.category, "price": price}
    return {**place, **sale, "event": _show_event(context, seat.event_id)}


def _show_sold(context: ApiContext, transfer: Mapping[str, Any]) -> dict[str, Any]:
    seat = context.participants.inventory.get_owner(transfer["seat_id"])
    place = {"seat_id": seat.seat_id, "row_number": seat.row_number, "seat_number": seat.seat_number}
    sale = {name: transfer[name] for name in ("transfer_id", "order_id", "status", "completed_at", "buyer_user_id")}
    return {**place, **sale, "price": transfer["credits_amount"], "event": _show_event(context, seat.event_id)}


def _show_event(context: ApiContext, event_id: str) -> dict[str, Any]:
    event = context.participants.events.get(event_id)
    return {name: event[name] for name in ("event_id", "name", "event_date", "hall_id")}
