"""What users are told beside the API: SMS and e-mails, by the orchestrator's outbox."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

import msgspec
from flask import Blueprint, Response

from services.chassis import access, web
from services.chassis.db import Database
from services.user import messages
from services.user.smu import Smu
from services.user.store import accounts

logger = logging.getLogger(__name__)


class Notification(msgspec.Struct, forbid_unknown_fields=True):
    user_id: UUID
    message: str
    fields: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if any(isinstance(value, list | dict) for value in self.fields.values()):
            raise ValueError("fields are texts and numbers")


def notification_routes(db: Database, smu: Smu) -> Blueprint:
    """One call for all messages. Asked twice it sends twice: the outbox promises at least once."""
    routes = Blueprint("notifications", __name__)

    @routes.post("/notifications")
    @access.internal("orchestrator-service")
    def notify() -> Response:
        _send(db, smu, web.body(Notification))
        return web.ok({"sent": True})

    return routes


def _send(db: Database, smu: Smu, asked: Notification) -> None:
    messages.require_known(asked.message)
    account = accounts.get(db, asked.user_id)
    if asked.message in messages.SMS:
        smu.send_sms(account["phone"], messages.sms(asked.message, asked.fields))
    else:
        letter = messages.email(asked.message, asked.fields)
        smu.send_email(account["email"], letter.subject, letter.body)
    logger.info("Told user %s: %s", asked.user_id, asked.message)
