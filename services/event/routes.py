"""The routes of Event: `/api/events` for visitors, `/events` for the orchestrator."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint, Response, request

from services.chassis import compression, web
from services.chassis.access import internal, signed_in
from services.chassis.db import Database
from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode
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
        event_ids = _read_event_ids()
        rows, total = db.read(lambda tx: store.all_events(tx, page, per_page, event_ids))
        return web.ok_page(rows, total, page, per_page)

    @routes.get("/events/<event_id>")
    @orchestrator
    def facts(event_id: str) -> Response:
        which = web.as_id(event_id)
        return web.ok(db.read(lambda tx: store.find(tx, which)))

    return routes


def _read_event_ids() -> list[UUID] | None:
    """Every `event_id` of the query, or None without one. Raises Refused INVALID_UUID or VALIDATION_ERROR."""
    event_ids = [web.as_id(text) for text in request.args.getlist("event_id")]
    if len(event_ids) > web.MAX_PER_PAGE:
        raise Refused(ErrorCode.VALIDATION_ERROR, f"Send at most {web.MAX_PER_PAGE} event_ids in the query.")
    return event_ids or None


def _conditional(rendered: Rendered) -> Response:
    """The bytes, or 304 if the caller already has them (`If-None-Match`)."""
    response = compression.respond(rendered.body, "application/json", rendered.etag)
    response.set_etag(rendered.etag, weak=response.content_encoding is not None)  # other bytes of the same content
    response.headers["Cache-Control"] = "private, no-cache"
    response.make_conditional(request)
    return response
