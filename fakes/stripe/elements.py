"""The part for browsers: a small stand-in for Stripe.js, with its card form and the page of 3-D Secure.

`/v3/` is the script, as at js.stripe.com. It has `elements`, the payment element, `confirmPayment` and
`retrievePaymentIntent`. The card form runs in a frame of this fake, so a page of the shop never sees a card.
"""

from typing import Any

from flask import Blueprint, Response, jsonify, request

from fakes.control import FakeState
from fakes.stripe import intents
from fakes.stripe.api import authenticate, check_client_secret
from fakes.stripe.cards import CARDS, NUMBERS, Card
from fakes.stripe.events import Call

SOURCES = {"default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "connect-src": "'self'"}
POLICY = "; ".join(f"{name} {source}" for name, source in SOURCES.items())

Json = dict[str, Any]


def blueprint(state: FakeState, secret_key: str) -> Blueprint:
    """Build the routes of the script, of its frames, and of the customer's answer to 3-D Secure."""
    routes = Blueprint("elements", __name__, static_folder="static", static_url_path="/elements")

    @routes.get("/v3/")
    def _script() -> Response:
        return routes.send_static_file("stripe.js")

    @routes.get("/elements/cards")
    def _cards() -> Response:
        cards = [{"number": n, "method": m, "outcome": _describe(CARDS[m])} for n, m in NUMBERS.items()]
        return jsonify(cards)

    @routes.post("/elements/authenticate")
    def _authenticate() -> Response:
        authenticate(secret_key)
        intent_id, secret = request.form.get("payment_intent", ""), request.form.get("client_secret", "")
        with state.lock:
            call = Call(state)
            intent = intents.find(call, intent_id)
            check_client_secret(intent, {"client_secret": secret})
            return jsonify(intents.authenticate(call, intent, request.form.get("passed") == "true"))

    @routes.after_request
    def _protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        response.headers["Cache-Control"] = "no-cache"
        return response

    return routes


def _describe(card: Card) -> str:
    """Describe the outcome of a payment with a card."""
    if card.challenge:
        return "The bank requires your approval (3-D Secure)."
    return card.message or "The payment succeeds."
