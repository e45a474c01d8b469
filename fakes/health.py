"""Health of a fake. It depends on no other service, so it is ready once it runs."""

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
