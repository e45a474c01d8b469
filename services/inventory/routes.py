"""Inventory over HTTP: what Event reads to show seats (the reference's choreography)."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint, Response, request

from services.chassis import web
from services.chassis.access import internal
from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode
from services.inventory.seat_maps import SeatMaps

MAX_EVENTS = 50  # more ids than fit a request line would be the server's own 414, without an envelope


def seat_routes(maps: SeatMaps) -> Blueprint:
    """The routes that Event calls."""
    routes = Blueprint("seats", __name__)
    event_service = internal("event-service")

    @routes.get("/seats")
    @event_service
    def seat_map() -> Response:
        event_id = web.query_id("event_id")
        if event_id is None:
            raise Refused(ErrorCode.VALIDATION_ERROR, "Name an event_id.")
        return _seat_map(maps, event_id)

    @routes.get("/seats/availability")
    @event_service
    def availability() -> Response:
        counts = maps.counts(_asked())
        return web.ok(
            [
                {"event_id": event_id, "total_seats": total, "available_seats": available}
                for event_id, (total, available) in counts.items()
            ]
        )

    return routes


def _seat_map(maps: SeatMaps, event_id: UUID) -> Response:
    """The map, or 304 when the caller has this version already (`If-None-Match`): then no seat is read."""
    version = maps.version(event_id)
    if version in request.if_none_match:
        response = Response(status=304)
    else:
        body = b'{"success":true,"data":%s}' % maps.rendered(event_id, version)
        response = Response(body, content_type="application/json")
    response.set_etag(version)
    return response


def _asked() -> list[UUID]:
    event_ids = list(dict.fromkeys(web.as_id(text) for text in request.args.getlist("event_id")))
    if not 1 <= len(event_ids) <= MAX_EVENTS:
        raise Refused(ErrorCode.VALIDATION_ERROR, f"Name 1 to {MAX_EVENTS} event_ids.")
    return event_ids
