"""Health of a fake: it has no neighbours, so being up is being ready."""

import time

from flask import Blueprint, Response, jsonify

from fakes.clock import iso


def blueprint(service: str) -> Blueprint:
    routes = Blueprint("health", __name__)

    @routes.get("/health")
    @routes.get("/health/live")
    def _health() -> Response:
        return jsonify(status="ok", service=service, timestamp=iso(time.time()), checks={})

    return routes
