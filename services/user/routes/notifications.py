"""The route for SMS and e-mails to users, for the orchestrator's outbox.

A request brings a batch of notices, because a request for each of them costs more CPU time than the sending. They are
sent in parallel on threads of their own, so that a slow SMU takes no thread from other requests.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any
from uuid import UUID

import msgspec
from flask import Blueprint, Response

from services.chassis import access, correlation, web
from services.chassis.db import Database, Row
from services.chassis.errors import Unknown
from services.user import messages
from services.user.smu import Smu
from services.user.store import accounts

logger = logging.getLogger(__name__)


AT_ONCE = 64


class Notice(msgspec.Struct, forbid_unknown_fields=True):
    user_id: UUID
    message: str
    fields: dict[str, Any] = {}
    correlation_id: UUID | None = None

    def __post_init__(self) -> None:
        if any(isinstance(value, list | dict) for value in self.fields.values()):
            raise ValueError("fields must be texts and numbers")


class Batch(msgspec.Struct, forbid_unknown_fields=True):
    notices: Annotated[list[Notice], msgspec.Meta(min_length=1, max_length=AT_ONCE)]


def notification_routes(db: Database, smu: Smu) -> Blueprint:
    """Build the route for all messages. A repeated call sends again, because the outbox delivers at least once."""
    routes = Blueprint("notifications", __name__)
    pool = ThreadPoolExecutor(AT_ONCE, "notices")

    @routes.post("/notifications")
    @access.internal("orchestrator-service")
    def notify() -> Response:
        notices = web.body(Batch).notices
        found = accounts.find_all(db, [notice.user_id for notice in notices])
        return web.ok({"sent": list(pool.map(lambda notice: _try_to_send(found, smu, notice), notices))})

    return routes


def _try_to_send(found: Mapping[UUID, Row], smu: Smu, notice: Notice) -> bool:
    with correlation.scope(str(notice.correlation_id or "")):
        try:
            _send(found[notice.user_id], smu, notice)
        except Unknown as unknown:
            logger.warning("The message %s may not be sent: %s", notice.message, unknown.message)
            return False
        except Exception:  # such as an unknown user or message. The other notices of the batch do not depend on it
            logger.exception("The message %s was not sent", notice.message)
            return False
        logger.info("Sent user %s the message %s", notice.user_id, notice.message)
        return True


def _send(account: Row, smu: Smu, notice: Notice) -> None:
    if notice.message in messages.SMS:
        smu.send_sms(account["phone"], messages.render_sms(notice.message, notice.fields))
    else:
        email = messages.render_email(notice.message, notice.fields)
        smu.send_email(account["email"], email.subject, email.body)
