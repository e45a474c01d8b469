"""Routes of a user's profile and risk flag, for the orchestrator."""

from __future__ import annotations

from flask import Blueprint, Response

from services.chassis import access, web
from services.chassis.db import Database
from services.user.store import accounts


def user_routes(db: Database) -> Blueprint:
    """Build the routes."""
    routes = Blueprint("users", __name__)

    @routes.get("/users/<user_id>")
    @access.internal("orchestrator-service")
    def profile(user_id: str) -> Response:
        return web.ok(dict(accounts.get(db, web.as_id(user_id))))

    @routes.get("/users/<user_id>/risk")
    @access.internal("orchestrator-service")
    def risk(user_id: str) -> Response:
        account = accounts.get(db, web.as_id(user_id))
        return web.ok({"user_id": account["user_id"], "is_flagged": account["is_flagged"]})

    return routes
