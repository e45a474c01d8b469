"""The routes of Event: `/api/events` for visitors, `/events` for the orchestrator."""

from __future__ import annotations

from flask import Blueprint, Response, request

from services.chassis import web
from services.chassis.access import internal, signed_in
from services.chassis.db import Database
from services.event import store
from services.event.catalogue import Catalogue, Rendered

orchestrator = internal("orchestrator-service")


def event_routes(db: Database, catalogue: Catalogue) -> Blueprint:
    """The blueprint with the routes of Event."""
    routes = Blueprint("events", __name__)

    @routes.get("/api/events")
    @signed_in
    def upcoming() -> Response:
        page, per_page = web.page()
        return _conditional(catalogue.upcoming(page, per_page))

    @routes.get("/api/events/<event_id>")
    @signed_in
    def seat_map(event_id: str) -> Response:
        return _conditional(catalogue.event(web.as_id(event_id)))

    @routes.get("/events")
    @orchestrator
    def all_events() -> Response:
        page, per_page = web.page()
        rows, total = db.read(lambda tx: store.all_events(tx, page, per_page))
        return web.ok_page(rows, total, page, per_page)

    @routes.get("/events/<event_id>")
    @orchestrator
    def facts(event_id: str) -> Response:
        which = web.as_id(event_id)
        return web.ok(db.read(lambda tx: store.find(tx, which)))

    return routes


def _conditional(rendered: Rendered) -> Response:
    """The bytes, or 304 if the caller already has them (`If-None-Match`)."""
    response = Response(rendered.body, content_type="application/json")
    response.set_etag(rendered.etag)
    response.headers["Cache-Control"] = "private, no-cache"
    response.make_conditional(request)
    return response
