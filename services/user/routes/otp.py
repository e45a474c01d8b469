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
from services.chassis.errors import NotSent, Unknown
from services.chassis.logs import mask_phone
from services.contracts.enums import OtpStatus
from services.user.smu import Smu
from services.user.store import credit_checks
from services.user.store.code_quota import CodeQuota

logger = logging.getLogger(__name__)


class SendRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A code to `user_id`. `initiator_id` is the user whose request needs it, by default the same."""

    user_id: UUID
    initiator_id: UUID | None = None


class VerifyRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A code. `user_id` is the account that enters a code of its own phone, or None for the code of another."""

    verification_sid: Annotated[str, Meta(min_length=1, max_length=128)]
    otp_code: Annotated[str, Meta(min_length=1, max_length=16)]
    user_id: UUID | None = None


def otp_routes(db: Database, smu: Smu, quota: CodeQuota, clean_ups: CleanUps) -> Blueprint:
    """Build the routes to send and verify a code. Order counts the attempts."""
    routes = Blueprint("otp", __name__, url_prefix="/otp")

    @routes.post("/send")
    @access.internal("orchestrator-service")
    def send() -> Response:
        return web.ok({"verification_sid": _send(db, smu, quota, clean_ups, web.body(SendRequest))})

    @routes.post("/verify")
    @access.internal("orchestrator-service")
    def verify() -> Response:
        guess = web.body(VerifyRequest)
        status = smu.verify_otp(guess.verification_sid, guess.otp_code)
        if status is OtpStatus.APPROVED and guess.user_id is not None:
            _verify_phone(quota, guess.user_id)
        return web.ok({"status": status})

    return routes


def _send(db: Database, smu: Smu, quota: CodeQuota, clean_ups: CleanUps, request: SendRequest) -> str:
    initiator_id = request.initiator_id or request.user_id
    phone, counts = quota.take(request.user_id, initiator_id)
    try:
        sid = smu.send_otp(phone)
    except NotSent:
        clean_ups.run(lambda: quota.give_back(counts))
        raise
    if initiator_id != request.user_id:
        clean_ups.run(lambda: credit_checks.count_message(db, initiator_id, request.user_id))
    logger.info("Sent a code to user %s at %s for user %s", request.user_id, mask_phone(phone), initiator_id)
    return sid


def _verify_phone(quota: CodeQuota, user_id: UUID) -> None:
    try:
        if quota.verify_phone(user_id):
            logger.info("User %s has verified their phone", user_id)
    except Unknown:  # SMU approves a code once, so its verdict must not get lost. A later code verifies the phone
        logger.warning("User %s entered a right code, but their phone is not recorded as verified", user_id)
