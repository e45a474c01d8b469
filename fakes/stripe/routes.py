"""The paths of the API."""

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Response, jsonify

from fakes.control import Plane
from fakes.stripe import intents, lists
from fakes.stripe.api import Api, Effect, entitled, query
from fakes.stripe.errors import missing
from fakes.stripe.events import Call
from fakes.stripe.params import LIST, TEXT, Params

Json = dict[str, Any]

ONE = {"expand": LIST, "client_secret": TEXT}


def register(app: Flask, plane: Plane) -> None:
    _writes(app, Api(plane))
    _intent_reads(app, plane)
    _other_reads(app, plane)


def _writes(app: Flask, api: Api) -> None:
    def on(ident: str, verb: Callable[[Call, Json, Params], Json]) -> Effect:
        def effect(call: Call, params: Params) -> Json:
            intent = intents.find(call, ident)
            entitled(intent, params)
            return verb(call, intent, params)

        return effect

    @app.post("/v1/payment_intents")
    def _create() -> Response:
        entitled(None, {})
        return api.write(intents.CREATE, intents.create, ("amount", "currency"))

    @app.post("/v1/payment_intents/<ident>")
    def _update(ident: str) -> Response:
        return api.write(intents.UPDATE, on(ident, intents.update))

    @app.post("/v1/payment_intents/<ident>/confirm")
    def _confirm(ident: str) -> Response:
        return api.write(intents.CONFIRM, on(ident, intents.confirm))

    @app.post("/v1/payment_intents/<ident>/cancel")
    def _cancel(ident: str) -> Response:
        return api.write(intents.CANCEL, on(ident, intents.cancel))


def _intent_reads(app: Flask, plane: Plane) -> None:
    def rendered(found: Json, expand: Iterable[str]) -> Json:
        """Lists expand what their rows hold, named as `data.…`."""
        names = [name.removeprefix("data.") for name in expand]
        return found | {"data": [lists.expanded(plane.store, row, names) for row in found["data"]]}

    @app.get("/v1/payment_intents/<ident>")
    def _retrieve(ident: str) -> Response:
        params = query(ONE)
        with plane.lock:
            intent = intents.find(Call(plane), ident)
            entitled(intent, params)
            return jsonify(lists.expanded(plane.store, intent, params.get("expand", [])))

    @app.get("/v1/payment_intents")
    def _list() -> Response:
        entitled(None, {})
        params = query(lists.LIST_INTENTS)
        with plane.lock:
            rows = [row for row in plane.store["intents"].values() if params.get("customer") in (None, row["customer"])]
            found = lists.listed(rows, params, "/v1/payment_intents", "payment_intent")
            return jsonify(rendered(found, params.get("expand", [])))

    @app.get("/v1/payment_intents/search")
    def _search() -> Response:
        entitled(None, {})
        params = query(lists.SEARCH, ("query",))
        with plane.lock:
            found = lists.search(plane.store["intents"].values(), params)
            return jsonify(rendered(found, params.get("expand", [])))


def _other_reads(app: Flask, plane: Plane) -> None:
    def one(collection: str, noun: str, ident: str, param: str) -> Json:
        entitled(None, {})
        query({"expand": LIST})
        kept: Json | None = plane.store[collection].get(ident)
        if kept is None:
            raise missing(noun, ident, param)
        return kept

    @app.get("/v1/charges/<ident>")
    def _charge(ident: str) -> Response:
        with plane.lock:
            return jsonify(one("charges", "charge", ident, "id"))

    @app.get("/v1/payment_methods/<ident>")
    def _payment_method(ident: str) -> Response:
        with plane.lock:
            return jsonify(one("methods", "PaymentMethod", ident, "payment_method")["object"])

    @app.get("/v1/events/<ident>")
    def _event(ident: str) -> Response:
        with plane.lock:
            return jsonify(one("events", "event", ident, "id"))

    @app.get("/v1/events")
    def _events() -> Response:
        entitled(None, {})
        params = query(lists.LIST_EVENTS)
        kinds = params.get("types") or [params["type"]] if params.get("types") or params.get("type") else None
        with plane.lock:
            rows = [row for row in plane.store["events"].values() if kinds is None or _is(row["type"], kinds)]
            return jsonify(lists.listed(rows, params, "/v1/events", "event"))


def _is(kind: str, wanted: list[str]) -> bool:
    """A type by its name, or by its family as in `payment_intent.*`."""
    return any(kind == name or (name.endswith(".*") and kind.startswith(name[:-1])) for name in wanted)
