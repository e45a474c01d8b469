"""Routes to list and end logins, for their user and for staff, and the current role for the other services."""

from __future__ import annotations

import logging
from uuid import UUID

from flask import Blueprint, Response, request

from services.chassis import access, web
from services.chassis.db import Database
from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode
from services.user.routes.auth import SESSION_ID
from services.user.store import accounts, logins, revocations, staff_commands

logger = logging.getLogger(__name__)


def login_routes(db: Database) -> Blueprint:
    """Build the routes."""
    routes = Blueprint("logins", __name__)

    @routes.get("/api/auth/logins")
    @access.signed_in
    def list_own() -> Response:
        caller = access.identity()
        return web.ok(
            [{**login, "is_current": login["sid"] == caller.sid} for login in logins.list_logins(db, caller.user_id)]
        )

    @routes.post("/api/auth/logout-everywhere")
    @access.signed_in
    def end_own() -> Response:
        caller = access.identity()
        ended = _end_logins(db, caller.user_id)
        revocations.revoke(db, caller.sid, caller.user_id)
        return web.ok({"ended": ended})

    @routes.post("/api/auth/users/<user_id>/logout")
    @access.support_staff
    def end_logins(user_id: str) -> Response:
        user = accounts.get(db, web.as_id(user_id))["user_id"]
        _log_command("ended the logins of", user)
        return web.ok({"ended": _end_logins(db, user, by_staff=True)})

    @routes.post("/api/auth/users/<user_id>/lock")
    @access.support_staff
    def lock(user_id: str) -> Response:
        return _set_lock(db, web.as_id(user_id), True)

    @routes.post("/api/auth/users/<user_id>/unlock")
    @access.support_staff
    def unlock(user_id: str) -> Response:
        return _set_lock(db, web.as_id(user_id), False)

    @routes.get("/users/<user_id>/role")
    @access.internal("orchestrator-service", "event-service")
    def role(user_id: str) -> Response:
        sid = request.args.get("sid", "")
        if not SESSION_ID.fullmatch(sid):
            raise Refused(ErrorCode.VALIDATION_ERROR, "sid is the id of a login.")
        return web.ok({"role": revocations.find_role(db, web.as_id(user_id), sid)})

    @routes.get("/staff-commands")
    @access.internal("orchestrator-service")
    def list_staff_commands() -> Response:
        after = request.args.get("after", "0")
        if not (after.isascii() and after.isdigit() and len(after) < 19):
            raise Refused(ErrorCode.VALIDATION_ERROR, "after is the number of a command.")
        return web.ok(staff_commands.list_after(db, int(after)))

    return routes


def _end_logins(db: Database, user_id: UUID, *, by_staff: bool = False) -> int:
    with db.transaction() as tx:
        if by_staff:
            staff_commands.record(tx, access.identity().user_id, "end_logins", user_id)
        ended = logins.end_all(tx, user_id)
    logger.info("Ended %d logins of user %s", ended, user_id)
    return ended


def _set_lock(db: Database, user_id: UUID, is_locked: bool) -> Response:
    with db.transaction() as tx:
        logins.lock_user(tx, user_id, is_locked)
        staff_commands.record(tx, access.identity().user_id, "lock" if is_locked else "unlock", user_id)
        ended = logins.end_all(tx, user_id) if is_locked else 0
    _log_command("locked" if is_locked else "unlocked", user_id)
    return web.ok({"is_locked": is_locked, "ended": ended})


def _log_command(what: str, user_id: UUID) -> None:
    logger.warning("Staff member %s %s user %s", access.identity().user_id, what, user_id)
