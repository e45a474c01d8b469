"""The part of Stripe's HTTP API that a top-up uses."""

import os
from typing import Any

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from fakes import health
from fakes.control import FakeState
from fakes.fault_middleware import FaultMiddleware, wait_for_hang
from fakes.ids import BASE62
from fakes.stripe import elements, objects, routes, scripting
from fakes.stripe.api import authenticate
from fakes.stripe.errors import StripeError, unknown_route_error
from fakes.stripe.webhooks import WebhookSender

SERVICE = "fake-stripe"
DEFAULT_WEBHOOK_SECRET = "whsec_fake"

Json = dict[str, Any]


def create_app() -> Flask:
    """Build the fake as a WSGI app, and start its webhook sender."""
    url = os.environ.get("STRIPE_WEBHOOK_URL", "")
    secret, logs = frozenset({"client_secret"}), frozenset({"deliveries"})
    state = FakeState(SERVICE, lambda: _empty(url), secret=secret, logs=logs)
    sender = WebhookSender(state, os.environ.get("STRIPE_WEBHOOK_SECRET") or DEFAULT_WEBHOOK_SECRET)
    app = Flask(__name__, static_folder=None)
    secret_key = os.environ.get("STRIPE_SECRET_KEY", "")
    app.register_blueprint(scripting.blueprint(state, sender))
    app.register_blueprint(elements.blueprint(state, secret_key))
    app.register_blueprint(health.blueprint(SERVICE))
    _add_request_hooks(app, state, secret_key)
    routes.register(app, state)
    app.wsgi_app = FaultMiddleware(app.wsgi_app, state, _default_body, _summarize)  # type: ignore[method-assign]
    sender.start()
    return app


def _empty(url: str) -> Json:
    kept: Json = {name: {} for name in ("intents", "charges", "methods", "refunds", "disputes", "events", "keys")}
    return kept | {"webhooks": scripting.default_script(url), "queue": [], "deliveries": []}


def _default_body(status: int) -> Json:
    return StripeError(status, "Scripted fault", kind="api_error").envelope()


def _summarize(answer: Any) -> Any:
    """Select the id and status of an object, or the error, for the journal."""
    kept = {name: answer[name] for name in ("id", "object", "status") if name in answer}
    if "error" in answer:
        kept["error"] = {name: answer["error"].get(name) for name in ("type", "code", "decline_code")}
    return kept


def _add_request_hooks(app: Flask, state: FakeState, secret_key: str) -> None:
    """Give each call to /v1 authentication, a request id and Stripe's error envelope."""

    @app.before_request
    def _open_call() -> None:
        if request.path.startswith("/v1/"):
            with state.lock:
                g.request_id = f"req_{state.ids.draw(BASE62, 14)}"
            authenticate(secret_key)
            if request.method != "POST":
                wait_for_hang(request.environ)

    @app.after_request
    def _add_headers(response: Response) -> Response:
        if "request_id" in g:
            response.headers["Request-Id"] = g.request_id
            response.headers["Stripe-Version"] = request.headers.get("Stripe-Version", objects.API_VERSION)
        return response

    @app.errorhandler(StripeError)
    def _handle_stripe_error(error: StripeError) -> tuple[Response, int]:
        return jsonify(error.envelope()), error.status

    @app.errorhandler(HTTPException)
    def _handle_http_error(error: HTTPException) -> tuple[Response, int]:
        return _handle_stripe_error(unknown_route_error(request.method, request.path))
