"""Route of the audit: the commands that staff and operators gave."""

from __future__ import annotations

from flask import Blueprint, Response

from services.chassis import web
from services.chassis.access import staff
from services.chassis.db import Database
from services.orchestrator import audit
from services.orchestrator.api.context import ApiContext


def blueprint(db: Database, context: ApiContext) -> Blueprint:
    """Create the route of the audit."""
    routes = Blueprint("staff", __name__)

    @routes.get("/api/audit")
    @staff
    def list_audit() -> Response:
        page, per_page = web.page()
        context.retry(lambda: audit.copy_commands(db, context.participants.users.list_staff_commands))
        rows, total = audit.list_records(db, page, per_page)
        return web.ok_page(rows, total, page, per_page)

    return routes
