"""The HTTP routes with which Event reads seats."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint, Response, request

from services.chassis import web
from services.chassis.access import internal
from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode
from services.inventory.seat_maps import SeatMaps

MAX_EVENTS = 50  # a longer request line would get the server's own 414, without an envelope


def seat_routes(maps: SeatMaps) -> Blueprint:
    """The blueprint of the routes for Event."""
    routes = Blueprint("seats", __name__)
    event_service = internal("event-service")

    @routes.get("/seats")
    @event_service
    def seat_map() -> Response:
        event_id = web.query_id("event_id")
        if event_id is None:
            raise Refused(ErrorCode.VALIDATION_ERROR, "Send an event_id in the query.")
        return _seat_map(maps, event_id)

    @routes.get("/seats/availability")
    @event_service
    def availability() -> Response:
        counts = maps.counts(_read_event_ids())
        return web.ok(
            [
                {"event_id": event_id, "total_seats": total, "available_seats": available}
                for event_id, (total, available) in counts.items()
            ]
        )

    return routes


def _seat_map(maps: SeatMaps, event_id: UUID) -> Response:
    """The map, or 304 without reading a seat if the caller already has this version (`If-None-Match`)."""
    version = maps.version(event_id)
    if version in request.if_none_match:
        response = Response(status=304)
    else:
        body = b'{"success":true,"data":%s}' % maps.render(event_id, version)
        response = Response(body, content_type="application/json")
    response.set_etag(version)
    return response


def _read_event_ids() -> list[UUID]:
    event_ids = list(dict.fromkeys(web.as_id(text) for text in request.args.getlist("event_id")))
    if not 1 <= len(event_ids) <= MAX_EVENTS:
        raise Refused(ErrorCode.VALIDATION_ERROR, f"Send 1 to {MAX_EVENTS} event_ids in the query.")
    return event_ids
