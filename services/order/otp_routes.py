"""Attempts at codes over HTTP, for the orchestrator: of orders, and of either party of a transfer. See `attempts`."""

from __future__ import annotations

from flask import Blueprint, Response

from services.chassis import web
from services.chassis.access import internal
from services.chassis.db import Database
from services.order import attempts
from services.order.order_otp import OrderOtp
from services.order.request_models import AttemptEnd, Keyed, PartyAttempt, PartyAttemptEnd
from services.order.transfer_otp import TransferOtp

orchestrator = internal("orchestrator-service")


def otp_routes(db: Database) -> Blueprint:
    """The routes that end in `/otp-attempts`."""
    routes = Blueprint("otp_attempts", __name__)

    @routes.post("/orders/<order_id>/otp-attempts")
    @orchestrator
    def take_order_attempt(order_id: str) -> Response:
        which = web.as_id(order_id)
        return web.ok(attempts.take(db, web.body(Keyed).key, OrderOtp(which)))

    @routes.patch("/orders/<order_id>/otp-attempts")
    @orchestrator
    def end_order_attempt(order_id: str) -> Response:
        which, ended = web.as_id(order_id), web.body(AttemptEnd)
        return web.ok(attempts.end(db, ended.key, ended.outcome, OrderOtp(which)))

    @routes.post("/transfers/<transfer_id>/otp-attempts")
    @orchestrator
    def take_transfer_attempt(transfer_id: str) -> Response:
        which, asked = web.as_id(transfer_id), web.body(PartyAttempt)
        return web.ok(attempts.take(db, asked.key, TransferOtp(which, asked.party)))

    @routes.patch("/transfers/<transfer_id>/otp-attempts")
    @orchestrator
    def end_transfer_attempt(transfer_id: str) -> Response:
        which, ended = web.as_id(transfer_id), web.body(PartyAttemptEnd)
        return web.ok(attempts.end(db, ended.key, ended.outcome, TransferOtp(which, ended.party)))

    return routes
