"""A call to the API: authentication, parameters, and one execution per idempotency key."""

import hmac
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from flask import Response, g, jsonify, request

from fakes.control import FakeState
from fakes.fault_middleware import OVERRIDE, wait_for_hang
from fakes.stripe import expansion
from fakes.stripe.errors import StripeError, authentication_error, missing_error
from fakes.stripe.events import Call
from fakes.stripe.idempotency import IdempotencyKeys, StoredResponse, fingerprint
from fakes.stripe.params import Params, check, form, nest

MAX_KEY_LENGTH = 255
SECRET_KEYS = ("sk_test_", "rk_test_")  # secret and restricted keys

Json = dict[str, Any]
Effect = Callable[[Call, Params], Json]


def authenticate(secret_key: str) -> None:
    """Require a secret test key as Bearer token or Basic user, or a publishable key, as Stripe.js sends it.

    A publishable key also needs a client secret, which `check_client_secret` requires.
    """
    given = request.authorization
    key = (given.token if given and given.type == "bearer" else given and given.username) or ""
    is_right = hmac.compare_digest(key.encode(), secret_key.encode()) if secret_key else key.startswith(SECRET_KEYS)
    g.publishable = key.startswith("pk_test_")
    if not is_right and not g.publishable:
        raise authentication_error(key)


def check_client_secret(intent: Json | None, params: Params) -> None:
    """Require the client secret of this intent for a publishable key."""
    secret = params.get("client_secret")
    if g.publishable and (intent is None or secret is None):
        message = "This API call cannot be made with a publishable API key. Please use a secret API key."
        raise StripeError(403, message, code="secret_key_required")
    if intent is not None and secret is not None and secret != intent["client_secret"]:
        raise missing_error("payment_intent", intent["id"], "intent")


class Api:
    """The POST calls. Each checks its parameters and runs once per idempotency key."""

    def __init__(self, state: FakeState) -> None:
        self._state, self._keys = state, IdempotencyKeys(state)

    def write(self, allowed: dict[str, str], effect: Effect, required: tuple[str, ...] = ()) -> Response:
        pairs = parse_qsl(request.get_data().decode("utf-8", "replace"), keep_blank_values=True)
        params = check(form(request.mimetype or None, request.get_data(), pairs), allowed, required)
        key = request.headers.get("Idempotency-Key", "")
        if len(key) > MAX_KEY_LENGTH:
            raise StripeError(400, f"Idempotency keys have up to {MAX_KEY_LENGTH} characters.", param="idempotency_key")
        work = partial(self._execute, effect, params, key or None)
        call_print = fingerprint(request.method, request.path, params)
        return _response(self._keys.run(key, call_print, g.request_id, work) if key else work(), key)

    def _execute(self, effect: Effect, params: Params, key: str | None) -> StoredResponse:
        """Return the response that the key stores. A decline or a scripted 5xx after the effect counts, too."""
        wait_for_hang(request.environ)
        paths = params.get("expand", [])
        for path in paths:
            expansion.check_path("payment_intent", path)
        try:
            with self._state.lock:
                made = effect(Call(self._state, g.request_id, key), params)
                answer = StoredResponse(200, expansion.expand(self._state.store, made, paths))
        except StripeError as error:
            if not error.was_executed:
                raise
            answer = StoredResponse(error.status, error.envelope())
        return StoredResponse(*request.environ[OVERRIDE]) if OVERRIDE in request.environ else answer


def _response(answer: StoredResponse, key: str) -> Response:
    response = jsonify(answer.body)
    response.status_code = answer.status
    if key:
        response.headers["Idempotency-Key"] = key
        response.headers["Original-Request"] = answer.original or g.request_id
    if answer.original:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def query(allowed: dict[str, str], required: tuple[str, ...] = ()) -> Params:
    pairs = parse_qsl(request.query_string.decode("utf-8", "replace"), keep_blank_values=True)
    return check(nest(pairs), allowed, required)
