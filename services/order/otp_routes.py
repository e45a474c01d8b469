"""HTTP routes of attempts at codes, for the orchestrator (see `attempts`)."""

from __future__ import annotations

from flask import Blueprint, Response

from services.chassis import web
from services.chassis.access import internal
from services.chassis.db import Database
from services.order import attempts
from services.order.order_otp import OrderOtp
from services.order.request_models import AttemptOutcome, KeyedRequest, PartyAttempt, PartyAttemptOutcome
from services.order.transfer_otp import TransferOtp

orchestrator = internal("orchestrator-service")


def otp_routes(db: Database, wrong_codes_per_day: int) -> Blueprint:
    """Build the routes that end in `/otp-attempts`."""
    routes = Blueprint("otp_attempts", __name__)

    def side(transfer_id: str, attempt: PartyAttempt | PartyAttemptOutcome) -> TransferOtp:
        return TransferOtp(web.as_id(transfer_id), attempt.party, attempt.caller_id, wrong_codes_per_day)

    @routes.post("/orders/<order_id>/otp-attempts")
    @orchestrator
    def take_order_attempt(order_id: str) -> Response:
        subject = OrderOtp(web.as_id(order_id))
        return web.ok(attempts.take(db, web.body(KeyedRequest).key, subject))

    @routes.patch("/orders/<order_id>/otp-attempts")
    @orchestrator
    def end_order_attempt(order_id: str) -> Response:
        subject, attempt = OrderOtp(web.as_id(order_id)), web.body(AttemptOutcome)
        return web.ok(attempts.end(db, attempt.key, attempt.outcome, subject))

    @routes.post("/transfers/<transfer_id>/otp-attempts")
    @orchestrator
    def take_transfer_attempt(transfer_id: str) -> Response:
        attempt = web.body(PartyAttempt)
        return web.ok(attempts.take(db, attempt.key, side(transfer_id, attempt)))

    @routes.patch("/transfers/<transfer_id>/otp-attempts")
    @orchestrator
    def end_transfer_attempt(transfer_id: str) -> Response:
        attempt = web.body(PartyAttemptOutcome)
        return web.ok(attempts.end(db, attempt.key, attempt.outcome, side(transfer_id, attempt)))

    return routes
