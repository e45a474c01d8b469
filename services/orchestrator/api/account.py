"""My tickets, my credits (§6 step 10, §7.1 refresh, §9 top-up)."""

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
from services.orchestrator.api.context import Desk
from services.orchestrator.tickets.qr import TTL_SECONDS, Sealed

PICTURES = {"image/svg+xml": "svg", "image/png": "png"}
NEWEST = 100


class TopUpBody(msgspec.Struct):
    amount: Amount


def blueprint(desk: Desk) -> Blueprint:
    """Routes about the caller's own things."""
    routes = Blueprint("account", __name__)

    @routes.get("/api/tickets")
    @customer
    def tickets() -> Response:
        user_id = str(identity().user_id)
        stand = _standing_transfers(desk, user_id)
        bought = {t["order_id"]: t["credits_amount"] for t in reversed(stand) if t["buyer_user_id"] == user_id}
        owned = [_owned(desk, seat, bought.get(seat.order_id)) for seat in desk.to.inventory.tickets(user_id)]
        sold = [_sold(desk, t) for t in stand if t["seller_user_id"] == user_id]
        return web.ok({"purchased": owned, "sold": sold})

    @routes.get("/api/tickets/<seat_id>/qr")
    @customer
    def refresh_qr(seat_id: str) -> Response:
        sealed = _fresh_qr(desk, str(web.as_id(seat_id)))
        wanted = request.accept_mimetypes.best_match(["application/json", *PICTURES], default="application/json")
        return _picture(sealed, wanted) if wanted in PICTURES else web.ok(_qr(sealed), headers=NO_STORE)

    @routes.get("/api/credits/balance")
    @customer
    def balance() -> Response:
        user = desk.to.users.get(identity().user_id)
        return web.ok({name: user[name] for name in ("user_id", "credit_balance", "frozen_credits")})

    @routes.post("/api/credits/topup")
    @paying_customer
    def top_up() -> Response:
        amount = web.body(TopUpBody).amount
        user_id = identity().user_id

        def create(topup_id: UUID) -> Mapping[str, Any]:
            return desk.to.users.top_up(f"topup:{topup_id}:1:create_intent", user_id, amount)

        return web.ok(desk.idempotent("topup", create))

    return routes


def _standing_transfers(desk: Desk, user_id: str) -> list[dict[str, Any]]:
    """The caller's transfers that went through, newest first."""
    pages = (
        desk.to.orders.transfers(user_id=user_id, status=status, per_page=NEWEST)["data"]
        for status in (TransferStatus.COMPLETED, TransferStatus.DISPUTED)
    )
    return sorted((t for page in pages for t in page), key=lambda t: str(t["completed_at"]), reverse=True)[:NEWEST]


NO_STORE = {"Cache-Control": "no-store"}  # a ticket that somebody else's cache keeps is somebody else's ticket


def _fresh_qr(desk: Desk, seat_id: str) -> Sealed:
    seat = desk.to.inventory.owner(seat_id)
    if seat.owner_user_id != str(identity().user_id):
        raise Refused(ErrorCode.NOT_SEAT_OWNER)
    if seat.status != SeatStatus.SOLD:
        raise Refused(ErrorCode.SEAT_UNAVAILABLE, "This ticket has been used.")
    return desk.to.seal.seal(seat_id, seat.owner_user_id, desk.to.events.get(seat.event_id)["hall_id"])


def _qr(sealed: Sealed) -> dict[str, Any]:
    moments = {"generated_at": sealed.generated_at, "expires_at": sealed.expires_at}
    return {"qr_payload": sealed.payload, **moments, "ttl_seconds": TTL_SECONDS}


def _picture(sealed: Sealed, mimetype: str) -> Response:
    drawn = io.BytesIO()
    segno.make(sealed.payload, micro=False).save(drawn, kind=PICTURES[mimetype], scale=6, border=4)
    return Response(drawn.getvalue(), content_type=mimetype, headers=NO_STORE)


def _owned(desk: Desk, seat: pb.Seat, transfer_price: Any) -> dict[str, Any]:
    price = Decimal(seat.price_paid) if transfer_price is None else transfer_price
    place = {"seat_id": seat.seat_id, "row_number": seat.row_number, "seat_number": seat.seat_number}
    sale = {"order_id": seat.order_id, "status": seat.status, "category": seat.category, "price": price}
    return {**place, **sale, "event": _event(desk, seat.event_id)}


def _sold(desk: Desk, transfer: Mapping[str, Any]) -> dict[str, Any]:
    seat = desk.to.inventory.owner(transfer["seat_id"])
    place = {"seat_id": seat.seat_id, "row_number": seat.row_number, "seat_number": seat.seat_number}
    sale = {name: transfer[name] for name in ("transfer_id", "order_id", "status", "completed_at", "buyer_user_id")}
    return {**place, **sale, "price": transfer["credits_amount"], "event": _event(desk, seat.event_id)}


def _event(desk: Desk, event_id: str) -> dict[str, Any]:
    event = desk.to.events.get(event_id)
    return {name: event[name] for name in ("event_id", "name", "event_date", "hall_id")}
