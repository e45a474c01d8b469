"""The routes of the API."""

from collections.abc import Callable
from typing import Any

from flask import Flask, Response, jsonify

from fakes.control import FakeState
from fakes.stripe import expansion, intents, lists
from fakes.stripe.api import Api, Effect, check_client_secret, query
from fakes.stripe.errors import missing_error
from fakes.stripe.events import Call
from fakes.stripe.params import LIST, TEXT, Params

Json = dict[str, Any]

ONE = {"expand": LIST, "client_secret": TEXT}


def register(app: Flask, state: FakeState) -> None:
    _writes(app, Api(state))
    _intent_reads(app, state)
    _other_reads(app, state)


def _writes(app: Flask, api: Api) -> None:
    def apply_to(object_id: str, verb: Callable[[Call, Json, Params], Json]) -> Effect:
        def effect(call: Call, params: Params) -> Json:
            intent = intents.find(call, object_id)
            check_client_secret(intent, params)
            return verb(call, intent, params)

        return effect

    @app.post("/v1/payment_intents")
    def _create() -> Response:
        check_client_secret(None, {})
        return api.write(intents.CREATE, intents.create, ("amount", "currency"))

    @app.post("/v1/payment_intents/<object_id>")
    def _update(object_id: str) -> Response:
        return api.write(intents.UPDATE, apply_to(object_id, intents.update))

    @app.post("/v1/payment_intents/<object_id>/confirm")
    def _confirm(object_id: str) -> Response:
        return api.write(intents.CONFIRM, apply_to(object_id, intents.confirm))

    @app.post("/v1/payment_intents/<object_id>/cancel")
    def _cancel(object_id: str) -> Response:
        return api.write(intents.CANCEL, apply_to(object_id, intents.cancel))


def _intent_reads(app: Flask, state: FakeState) -> None:
    def expand_rows(page: Json, params: Params) -> Json:
        return expansion.expand_rows(state.store, page, params.get("expand", []), "payment_intent")

    @app.get("/v1/payment_intents/<object_id>")
    def _retrieve(object_id: str) -> Response:
        params = query(ONE)
        with state.lock:
            intent = intents.find(Call(state), object_id)
            check_client_secret(intent, params)
            return jsonify(expansion.expand(state.store, intent, params.get("expand", [])))

    @app.get("/v1/payment_intents")
    def _list() -> Response:
        check_client_secret(None, {})
        params = query(lists.LIST_INTENTS)
        with state.lock:
            rows = [row for row in state.store["intents"].values() if params.get("customer") in (None, row["customer"])]
            found = lists.list_page(rows, params, "/v1/payment_intents", "payment_intent")
            return jsonify(expand_rows(found, params))

    @app.get("/v1/payment_intents/search")
    def _search() -> Response:
        check_client_secret(None, {})
        params = query(lists.SEARCH, ("query",))
        with state.lock:
            found = lists.search(state.store["intents"].values(), params)
            return jsonify(expand_rows(found, params))


def _other_reads(app: Flask, state: FakeState) -> None:
    def find(collection: str, noun: str, object_id: str, param: str) -> Json:
        check_client_secret(None, {})
        paths = query({"expand": LIST}).get("expand", [])
        found: Json | None = state.store[collection].get(object_id)
        if found is None:
            raise missing_error(noun, object_id, param)
        return expansion.expand(state.store, found["object"] if collection == "methods" else found, paths)

    @app.get("/v1/charges/<object_id>")
    def _charge(object_id: str) -> Response:
        with state.lock:
            return jsonify(find("charges", "charge", object_id, "id"))

    @app.get("/v1/payment_methods/<object_id>")
    def _payment_method(object_id: str) -> Response:
        with state.lock:
            return jsonify(find("methods", "PaymentMethod", object_id, "payment_method"))

    @app.get("/v1/events/<object_id>")
    def _event(object_id: str) -> Response:
        with state.lock:
            return jsonify(find("events", "event", object_id, "id"))

    @app.get("/v1/events")
    def _events() -> Response:
        check_client_secret(None, {})
        params = query(lists.LIST_EVENTS)
        kinds = params.get("types") or [params["type"]] if params.get("types") or params.get("type") else None
        with state.lock:
            rows = [row for row in state.store["events"].values() if kinds is None or _is_type(row["type"], kinds)]
            found = lists.list_page(rows, params, "/v1/events", "event")
            return jsonify(expansion.expand_rows(state.store, found, params.get("expand", []), "event"))


def _is_type(kind: str, wanted: list[str]) -> bool:
    """Whether `wanted` contains the type or its family, as in `payment_intent.*`."""
    return any(kind == name or (name.endswith(".*") and kind.startswith(name[:-1])) for name in wanted)
