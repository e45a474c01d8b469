"""The route for SMS and e-mails to users, for the orchestrator's outbox."""

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
            raise ValueError("fields must be texts and numbers")


def notification_routes(db: Database, smu: Smu) -> Blueprint:
    """Build the route for all messages. A repeated call sends again, because the outbox delivers at least once."""
    routes = Blueprint("notifications", __name__)

    @routes.post("/notifications")
    @access.internal("orchestrator-service")
    def notify() -> Response:
        _send(db, smu, web.body(Notification))
        return web.ok({"sent": True})

    return routes


def _send(db: Database, smu: Smu, notification: Notification) -> None:
    messages.require_known(notification.message)
    account = accounts.get(db, notification.user_id)
    if notification.message in messages.SMS:
        smu.send_sms(account["phone"], messages.render_sms(notification.message, notification.fields))
    else:
        email = messages.render_email(notification.message, notification.fields)
        smu.send_email(account["email"], email.subject, email.body)
    logger.info("Sent user %s the message %s", notification.user_id, notification.message)
