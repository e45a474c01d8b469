"""Stripe's HTTP API, as far as a top-up uses it."""

import os
from typing import Any

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from fakes import health
from fakes.control import Plane
from fakes.gate import Gate, hold
from fakes.ids import BASE62
from fakes.stripe import objects, routes, scripting
from fakes.stripe.api import authenticate
from fakes.stripe.errors import StripeError, unrecognized
from fakes.stripe.webhooks import Courier

SERVICE = "fake-stripe"
DEFAULT_WEBHOOK_SECRET = "whsec_fake"

Json = dict[str, Any]


def create_app() -> Flask:
    """The fake as a WSGI app, its courier running."""
    url = os.environ.get("STRIPE_WEBHOOK_URL", "")
    plane = Plane(SERVICE, lambda: _empty(url), secret=frozenset({"client_secret"}))
    courier = Courier(plane, os.environ.get("STRIPE_WEBHOOK_SECRET") or DEFAULT_WEBHOOK_SECRET)
    app = Flask(__name__)
    app.register_blueprint(scripting.blueprint(plane, courier))
    app.register_blueprint(health.blueprint(SERVICE))
    _frame(app, plane, os.environ.get("STRIPE_SECRET_KEY", ""))
    routes.register(app, plane)
    app.wsgi_app = Gate(app.wsgi_app, plane, _excuse, _summary)  # type: ignore[method-assign]
    courier.start()
    return app


def _empty(url: str) -> Json:
    kept: Json = {name: {} for name in ("intents", "charges", "methods", "events", "keys")}
    return kept | {"webhooks": scripting.webhooks(url), "queue": [], "deliveries": []}


def _excuse(status: int) -> Json:
    return StripeError(status, "Scripted fault", kind="api_error").envelope()


def _summary(answer: Any) -> Any:
    """What the journal keeps: which object, in which state, or which error."""
    kept = {name: answer[name] for name in ("id", "object", "status") if name in answer}
    if "error" in answer:
        kept["error"] = {name: answer["error"].get(name) for name in ("type", "code", "decline_code")}
    return kept


def _frame(app: Flask, plane: Plane, secret_key: str) -> None:
    """What every call to /v1 has: a key, a request id, Stripe's error envelope."""

    @app.before_request
    def _admit() -> None:
        if request.path.startswith("/v1/"):
            with plane.lock:
                g.request_id = f"req_{plane.ids.draw(BASE62, 14)}"
            authenticate(secret_key)
            if request.method != "POST":
                hold(request.environ)

    @app.after_request
    def _head(response: Response) -> Response:
        if "request_id" in g:
            response.headers["Request-Id"] = g.request_id
            response.headers["Stripe-Version"] = request.headers.get("Stripe-Version", objects.API_VERSION)
        return response

    @app.errorhandler(StripeError)
    def _refused(error: StripeError) -> tuple[Response, int]:
        return jsonify(error.envelope()), error.status

    @app.errorhandler(HTTPException)
    def _unknown(error: HTTPException) -> tuple[Response, int]:
        return _refused(unrecognized(request.method, request.path))
