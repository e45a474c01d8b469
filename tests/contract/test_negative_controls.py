"""Negative controls of the contract suite: each check fails on a spec that is wrong in its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.dev.spec_bundle import SERVED, Document, bundle, load, operations
from harness.runtime.compose import ROOT
from tests.contract import client_files, drift, protos
from tests.contract.exchanges import Contract, Exchange

pytestmark = [pytest.mark.contract, pytest.mark.negative_control]
Break = Callable[[Document], None]


# ── broken copies of each spec, against recorded exchanges


def remove_status(response: Document, responses: Document, status: str) -> None:
    del responses[status]


def require_field(response: Document, _responses: Document, _status: str) -> None:
    get_schema(response).setdefault("required", []).append("a_field_that_is_never_sent")


def change_type(response: Document, _responses: Document, _status: str) -> None:
    get_schema(response)["type"] = "array"


def change_media_type(response: Document, _responses: Document, _status: str) -> None:
    response["content"] = {"application/xml": response["content"]["application/json"]}


def require_header(response: Document, _responses: Document, _status: str) -> None:
    response["headers"] = {"X-Never-Sent": {"required": True, "schema": {"type": "string"}}}


def get_schema(response: Document) -> Document:
    schema: Document = response["content"]["application/json"]["schema"]
    return schema


BREAKS = (remove_status, require_field, change_type, change_media_type, require_header)


@pytest.mark.parametrize("breaks", BREAKS, ids=lambda breaks: breaks.__name__)
@pytest.mark.parametrize("server", SERVED)
def test_broken_copy_of_a_spec_is_found(exchanges: list[Exchange], server: str, breaks: Callable[..., None]) -> None:
    document, exchange = bundle(server), find_successful(exchanges, server)
    assert not list_violations(document, exchange)
    _, _, operation = find_operation(document, exchange)
    responses, status = operation["responses"], str(exchange.status)
    breaks(responses[status], responses, status)
    assert list_violations(document, exchange)


@pytest.mark.parametrize("server", SERVED)
def test_operation_that_a_spec_lost_is_found(exchanges: list[Exchange], server: str) -> None:
    document, exchange = bundle(server), find_successful(exchanges, server)
    _, path, _ = find_operation(document, exchange)
    del document["paths"][path]
    assert list_violations(document, exchange)


@pytest.mark.parametrize("server", [server for server in SERVED if server not in ("smu", "stripe")])
def test_renamed_error_code_is_found(exchanges: list[Exchange], server: str) -> None:
    document = bundle(server)
    for response in document["components"]["responses"].values():
        enum = get_schema(response)["properties"]["error_code"]["enum"]
        enum[:] = [f"{code}_RENAMED" for code in enum]
    refused = [
        exchange for exchange in exchanges if exchange.server == server and exchange.status in (400, 401, 404, 409)
    ]
    assert refused
    assert all(list_violations(document, exchange) for exchange in refused if Contract(document).identify(exchange))


def find_successful(exchanges: list[Exchange], server: str) -> Exchange:
    json = "application/json"
    candidates = (
        e for e in exchanges if e.server == server and e.status == 200 and e.headers.get("Content-Type") == json
    )
    return next(exchange for exchange in candidates if Contract(bundle(server)).identify(exchange))


def find_operation(document: Document, exchange: Exchange) -> tuple[str, str, Document]:
    reached = Contract(document).identify(exchange)
    return next(one for one in operations(document) if reached and one[:2] == reached[:2])


def list_violations(document: Document, exchange: Exchange) -> list[str]:
    return list(Contract(document).violations(exchange))


# ── changed copies of facts that two files state


def lose_route(kong: Document) -> None:
    kong["services"][1]["routes"].clear()


def open_route(kong: Document) -> None:
    kong["services"][2]["routes"][0]["plugins"] = []


def swap_services(kong: Document) -> None:
    kong["services"][1]["name"], kong["services"][2]["name"] = kong["services"][2]["name"], kong["services"][1]["name"]


def add_route(kong: Document) -> None:
    kong["services"][0]["routes"].append({"name": "back-door", "paths": ["/users"], "plugins": []})


@pytest.mark.parametrize("breaks", [lose_route, open_route, swap_services, add_route], ids=lambda b: b.__name__)
def test_changed_kong_configuration_is_found(breaks: Break) -> None:
    kong = drift.load_kong_config()
    breaks(kong)
    assert list(drift.check_gateway(kong, bundle("gateway")))


def test_public_operation_without_a_route_is_found() -> None:
    public = bundle("gateway")
    public["paths"]["/elsewhere"] = public["paths"]["/api/pay"]
    assert list(drift.check_gateway(drift.load_kong_config(), public))


@pytest.mark.parametrize("server", ["orchestrator", "user", "order", "event", "inventory"])
def test_route_that_only_code_or_spec_has_is_found(server: str) -> None:
    document = bundle(server)
    path, item = document["paths"].popitem()
    assert list(drift.check_routes(server, document))
    document["paths"] |= {path: item, "/only-here": {"get": {"responses": {}}}}
    assert list(drift.check_routes(server, document)) == [f"{server}: GET /only-here is in the spec only"]


def test_error_code_at_another_status_or_in_no_spec_is_found() -> None:
    documents = drift.load_specs()
    for document in documents.values():
        expired = document["components"]["responses"]["HoldExpired"]
        get_schema(expired)["properties"]["error_code"]["enum"] = ["SEAT_UNAVAILABLE"]
    found = list(drift.check_error_codes({}, documents))
    assert "SEAT_UNAVAILABLE is 409 in the table and 410 in a spec" in found
    assert "HOLD_EXPIRED is in the table and in no spec" in found


def change_ttl(spec: Document) -> None:
    spec["channels"]["waiting"]["x-arguments"]["x-message-ttl"] = 1


def change_binding(spec: Document) -> None:
    spec["channels"]["holds"]["x-bound-to"] = "seat.release.queue"


def change_exchange(spec: Document) -> None:
    spec["channels"]["releases"]["bindings"]["amqp"]["exchange"]["type"] = "fanout"


def make_transient(spec: Document) -> None:
    spec["channels"]["wakeUps"]["bindings"]["amqp"]["queue"]["durable"] = False


def make_autodelete(spec: Document) -> None:
    spec["channels"]["holds"]["bindings"]["amqp"]["exchange"]["autoDelete"] = True


@pytest.mark.parametrize(
    "breaks",
    [change_ttl, change_binding, change_exchange, make_transient, make_autodelete],
    ids=lambda breaks: breaks.__name__,
)
def test_changed_queue_is_found(breaks: Break) -> None:
    spec = load("queues")
    breaks(spec)
    assert list(drift.check_queues(spec, drift.load_definitions()))


def change_action(spec: Document) -> None:
    spec["operations"]["park"]["action"] = "unknown"


def add_unknown_field(spec: Document) -> None:
    spec["channels"]["holds"]["colour"] = "red"


def change_binding_kind(spec: Document) -> None:
    spec["channels"]["holds"]["bindings"]["amqp"]["is"] = "topic"


def break_reference(spec: Document) -> None:
    spec["operations"]["park"]["channel"]["$ref"] = "#/channels/missing"


@pytest.mark.parametrize(
    "breaks",
    [change_action, add_unknown_field, change_binding_kind, break_reference],
    ids=lambda breaks: breaks.__name__,
)
def test_document_that_is_not_asyncapi_is_found(breaks: Break) -> None:
    spec = load("queues")
    breaks(spec)
    assert list(drift.check_asyncapi(spec))


def find_request(collection: Document) -> Document:
    return next(item for folder in collection["item"] for item in folder["item"] if item["name"] == "Pay as the seller")


def change_path(collection: Document) -> None:
    find_request(collection)["request"]["url"]["path"] = ["api", "buy"]


def change_body(collection: Document) -> None:
    find_request(collection)["request"]["body"]["raw"] = '{"order": "{{order_id}}"}'


def change_assertion(collection: Document) -> None:
    find_request(collection)["event"][-1]["script"]["exec"][0] = "pm.test('418', () => {"


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/api/auth/login", "400", "VALIDATION_ERROR or QR_INVALID."),
        ("/api/auth/login", "503", "Try again with the same Idempotency-Key."),
        ("/api/auth/refresh", "401", "The token has expired. Refresh it, then scan again."),
        ("/api/auth/logout", "401", "FORBIDDEN."),
    ],
)
def test_text_of_another_call_is_found(path: str, status: str, text: str) -> None:
    swagger = client_files.read(client_files.OUTSYSTEMS)
    swagger["paths"][path]["post"]["responses"][status]["description"] = text
    assert list(client_files.check_outsystems(swagger, bundle("gateway")))


@pytest.mark.parametrize("breaks", [change_path, change_body, change_assertion], ids=lambda b: b.__name__)
def test_changed_postman_request_is_found(breaks: Break) -> None:
    collection = client_files.read(client_files.POSTMAN)
    breaks(collection)
    assert list(client_files.check_postman(collection, bundle("gateway")))


@pytest.mark.parametrize(
    ("definition", "change"),
    [
        ("VerifyRequest", {"required": ["qr_payload"]}),
        ("VerifyData", {"properties": {"result": {"type": "string"}}}),
        ("LoginData", {"type": "array"}),
    ],
)
def test_changed_outsystems_definition_is_found(definition: str, change: dict[str, Any]) -> None:
    swagger = client_files.read(client_files.OUTSYSTEMS)
    swagger["definitions"][definition] |= change
    assert list(client_files.check_outsystems(swagger, bundle("gateway")))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("int32 ttl_seconds = 4;", "string ttl_seconds = 4;", "another type"),
        ("int32 ttl_seconds = 4;", "int32 ttl_seconds = 14;", "not reserved"),
        ("rpc ReserveSeat(ReserveSeatRequest) returns (Hold);", "", "gone"),
        ("inventory.v1;", "inventory.v2;", "became"),
    ],
)
def test_breaking_change_of_the_proto_is_found(old: str, new: str, problem: str) -> None:
    text = (ROOT / protos.FILE).read_text()
    assert old in text
    before, after = next(protos.load_released()), protos.parse_proto(text.replace(old, new))
    assert any(problem in found for found in protos.find_breaking_changes(before, after))


@pytest.mark.parametrize(
    ("old", "new"),
    [("inventory.v1;", "inventory;"), ("ttl_seconds = 4", "ttlSeconds = 4"), ("rpc ReserveSeat", "rpc reserveSeat")],
)
def test_badly_written_proto_is_found(old: str, new: str) -> None:
    text = (ROOT / protos.FILE).read_text()
    assert old in text
    assert list(protos.lint(protos.parse_proto(text.replace(old, new))))
