"""Route of the audit: the commands that staff and operators gave."""

from __future__ import annotations

from flask import Blueprint, Response

from services.chassis import web
from services.chassis.access import staff
from services.chassis.db import Database
from services.orchestrator import audit


def blueprint(db: Database) -> Blueprint:
    """Create the route of the audit."""
    routes = Blueprint("staff", __name__)

    @routes.get("/api/audit")
    @staff
    def list_audit() -> Response:
        page, per_page = web.page()
        rows, total = audit.list_records(db, page, per_page)
        return web.ok_page(rows, total, page, per_page)

    return routes
