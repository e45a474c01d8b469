"""Routes for one-time codes, by SMS through SMU (section 9 of the reference)."""

from __future__ import annotations

import logging
from typing import Annotated
from uuid import UUID

import msgspec
from flask import Blueprint, Response
from msgspec import Meta

from services.chassis import access, web
from services.chassis.clean_ups import CleanUps
from services.chassis.db import Database
from services.chassis.errors import NotSent
from services.chassis.logs import mask_phone
from services.user.smu import Smu
from services.user.store import accounts, otp_quota

logger = logging.getLogger(__name__)


class SendRequest(msgspec.Struct, forbid_unknown_fields=True):
    user_id: UUID


class VerifyRequest(msgspec.Struct, forbid_unknown_fields=True):
    verification_sid: Annotated[str, Meta(min_length=1, max_length=128)]
    otp_code: Annotated[str, Meta(min_length=1, max_length=16)]


def otp_routes(db: Database, smu: Smu, clean_ups: CleanUps) -> Blueprint:
    """Build the routes to send and verify a code. Order counts the attempts."""
    routes = Blueprint("otp", __name__, url_prefix="/otp")

    @routes.post("/send")
    @access.internal("orchestrator-service")
    def send() -> Response:
        return web.ok({"verification_sid": _send(db, smu, clean_ups, web.body(SendRequest).user_id)})

    @routes.post("/verify")
    @access.internal("orchestrator-service")
    def verify() -> Response:
        guess = web.body(VerifyRequest)
        return web.ok({"status": smu.verify_otp(guess.verification_sid, guess.otp_code)})

    return routes


def _send(db: Database, smu: Smu, clean_ups: CleanUps, user_id: UUID) -> str:
    phone = accounts.get(db, user_id)["phone"]
    taken_at = otp_quota.take(db, phone)
    try:
        sid = smu.send_otp(phone)
    except NotSent:
        clean_ups.run(lambda: otp_quota.give_back(db, phone, taken_at))
        raise
    logger.info("Sent a code to user %s at %s", user_id, mask_phone(phone))
    return sid
