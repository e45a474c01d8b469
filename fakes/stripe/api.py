"""A call to the API: who asks, what was sent, and one execution for each idempotency key."""

import hmac
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from flask import Response, g, jsonify, request

from fakes.control import Plane
from fakes.gate import OVERRIDE, hold
from fakes.stripe import lists
from fakes.stripe.errors import StripeError, missing, unauthorized
from fakes.stripe.events import Call
from fakes.stripe.idempotency import Answer, Keys, fingerprint
from fakes.stripe.params import Params, check, form, nest

LONGEST_KEY = 255

Json = dict[str, Any]
Effect = Callable[[Call, Params], Json]


def authenticate(secret_key: str) -> None:
    """A secret test key as Bearer token or as the user of Basic auth; a publishable one, as the browser's
    Stripe.js sends it, where a client secret can speak for it (checked there)."""
    given = request.authorization
    key = (given.token if given and given.type == "bearer" else given and given.username) or ""
    right = hmac.compare_digest(key.encode(), secret_key.encode()) if secret_key else key.startswith("sk_test_")
    g.publishable = key.startswith("pk_test_")
    if not right and not g.publishable:
        raise unauthorized(key)


def entitled(intent: Json | None, params: Params) -> None:
    """A publishable key needs the client secret of the very intent."""
    secret = params.get("client_secret")
    if g.publishable and (intent is None or secret is None):
        message = "This API call cannot be made with a publishable API key. Please use a secret API key."
        raise StripeError(403, message, code="secret_key_required")
    if intent is not None and secret is not None and secret != intent["client_secret"]:
        raise missing("payment_intent", intent["id"], "intent")


class Api:
    """POSTs: parameters checked, then once for each idempotency key."""

    def __init__(self, plane: Plane) -> None:
        self._plane, self._keys = plane, Keys(plane)

    def write(self, takes: dict[str, str], effect: Effect, required: tuple[str, ...] = ()) -> Response:
        pairs = parse_qsl(request.get_data().decode("utf-8", "replace"), keep_blank_values=True)
        params = check(form(request.mimetype or None, request.get_data(), pairs), takes, required)
        key = request.headers.get("Idempotency-Key", "")
        if len(key) > LONGEST_KEY:
            raise StripeError(400, f"Idempotency keys have up to {LONGEST_KEY} characters.", param="idempotency_key")
        work = partial(self._execute, effect, params, key or None)
        asked = fingerprint(request.method, request.path, params)
        return _response(self._keys.run(key, asked, g.request_id, work) if key else work(), key)

    def _execute(self, effect: Effect, params: Params, key: str | None) -> Answer:
        """What the key will remember: a decline too, and a 5xx scripted to come after the effect."""
        hold(request.environ)
        expand = params.get("expand", [])
        lists.check_expand(expand)
        try:
            with self._plane.lock:
                made = effect(Call(self._plane, g.request_id, key), params)
                answer = Answer(200, lists.expanded(self._plane.store, made, expand))
        except StripeError as error:
            if not error.executed:
                raise
            answer = Answer(error.status, error.envelope())
        return Answer(*request.environ[OVERRIDE]) if OVERRIDE in request.environ else answer


def _response(answer: Answer, key: str) -> Response:
    response = jsonify(answer.body)
    response.status_code = answer.status
    if key:
        response.headers["Idempotency-Key"] = key
        response.headers["Original-Request"] = answer.original or g.request_id
    if answer.original:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def query(takes: dict[str, str], required: tuple[str, ...] = ()) -> Params:
    pairs = parse_qsl(request.query_string.decode("utf-8", "replace"), keep_blank_values=True)
    return check(nest(pairs), takes, required)
