"""A contract that cannot fail is none: each way in which a spec can be wrong makes the check that it names fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.dev.spec_bundle import SERVED, Document, bundle, load, operations
from harness.runtime.compose import ROOT
from tests.contract import clients, drift, protos
from tests.contract.exchanges import Contract, Exchange

pytestmark = [pytest.mark.contract, pytest.mark.negative_control]
Break = Callable[[Document], None]


# ── broken copies of each spec, against what was really said


def forget_status(response: Document, responses: Document, status: str) -> None:
    del responses[status]


def miss_field(response: Document, _responses: Document, _status: str) -> None:
    schema_of(response).setdefault("required", []).append("a_field_that_nobody_sends")


def wrong_type(response: Document, _responses: Document, _status: str) -> None:
    schema_of(response)["type"] = "array"


def wrong_media_type(response: Document, _responses: Document, _status: str) -> None:
    response["content"] = {"application/xml": response["content"]["application/json"]}


def miss_header(response: Document, _responses: Document, _status: str) -> None:
    response["headers"] = {"X-That-Nobody-Sends": {"required": True, "schema": {"type": "string"}}}


def schema_of(response: Document) -> Document:
    schema: Document = response["content"]["application/json"]["schema"]
    return schema


BREAKS = (forget_status, miss_field, wrong_type, wrong_media_type, miss_header)


@pytest.mark.parametrize("breaks", BREAKS, ids=lambda breaks: breaks.__name__)
@pytest.mark.parametrize("server", SERVED)
def test_broken_copy_of_a_spec_is_found_out(said: list[Exchange], server: str, breaks: Callable[..., None]) -> None:
    document, exchange = bundle(server), successful(said, server)
    assert not violations(document, exchange)
    _, _, operation = answered(document, exchange)
    responses, status = operation["responses"], str(exchange.status)
    breaks(responses[status], responses, status)
    assert violations(document, exchange)


@pytest.mark.parametrize("server", SERVED)
def test_operation_that_a_spec_has_lost_is_found_out(said: list[Exchange], server: str) -> None:
    document, exchange = bundle(server), successful(said, server)
    _, path, _ = answered(document, exchange)
    del document["paths"][path]
    assert violations(document, exchange)


@pytest.mark.parametrize("server", [server for server in SERVED if server not in ("smu", "stripe")])
def test_renamed_error_code_is_found_out(said: list[Exchange], server: str) -> None:
    document = bundle(server)
    for response in document["components"]["responses"].values():
        enum = schema_of(response)["properties"]["error_code"]["enum"]
        enum[:] = [f"{code}_RENAMED" for code in enum]
    refused = [exchange for exchange in said if exchange.server == server and exchange.status in (400, 401, 404, 409)]
    assert refused
    assert all(violations(document, exchange) for exchange in refused if Contract(document).reached(exchange))


def successful(said: list[Exchange], server: str) -> Exchange:
    json = "application/json"
    fits = (e for e in said if e.server == server and e.status == 200 and e.headers.get("Content-Type") == json)
    return next(exchange for exchange in fits if Contract(bundle(server)).reached(exchange))


def answered(document: Document, exchange: Exchange) -> tuple[str, str, Document]:
    reached = Contract(document).reached(exchange)
    return next(one for one in operations(document) if reached and one[:2] == reached[:2])


def violations(document: Document, exchange: Exchange) -> list[str]:
    return list(Contract(document).violations(exchange))


# ── what is written twice, told apart


def lose_route(kong: Document) -> None:
    kong["services"][1]["routes"].clear()


def open_route(kong: Document) -> None:
    kong["services"][2]["routes"][0]["plugins"] = []


def swap_services(kong: Document) -> None:
    kong["services"][1]["name"], kong["services"][2]["name"] = kong["services"][2]["name"], kong["services"][1]["name"]


def add_route(kong: Document) -> None:
    kong["services"][0]["routes"].append({"name": "back-door", "paths": ["/users"], "plugins": []})


@pytest.mark.parametrize("breaks", [lose_route, open_route, swap_services, add_route], ids=lambda b: b.__name__)
def test_changed_kong_configuration_is_found_out(breaks: Break) -> None:
    kong = drift.kong_config()
    breaks(kong)
    assert list(drift.gateway(kong, bundle("gateway")))


def test_public_operation_without_a_route_is_found_out() -> None:
    public = bundle("gateway")
    public["paths"]["/elsewhere"] = public["paths"]["/api/pay"]
    assert list(drift.gateway(drift.kong_config(), public))


@pytest.mark.parametrize("server", ["orchestrator", "user", "order", "event", "inventory"])
def test_route_that_only_code_or_spec_has_is_found_out(server: str) -> None:
    document = bundle(server)
    path, item = document["paths"].popitem()
    assert list(drift.routes(server, document))
    document["paths"] |= {path: item, "/only-here": {"get": {"responses": {}}}}
    assert list(drift.routes(server, document)) == [f"{server}: GET /only-here is in the spec only"]


def test_error_code_at_another_status_or_in_no_spec_is_found_out() -> None:
    documents = drift.whole()
    for document in documents.values():
        expired = document["components"]["responses"]["HoldExpired"]
        schema_of(expired)["properties"]["error_code"]["enum"] = ["SEAT_UNAVAILABLE"]
    found = list(drift.error_codes({}, documents))
    assert "SEAT_UNAVAILABLE is 409 in the table and 410 in a spec" in found
    assert "HOLD_EXPIRED is in the table and in no spec" in found


def other_ttl(spec: Document) -> None:
    spec["channels"]["waiting"]["x-arguments"]["x-message-ttl"] = 1


def other_binding(spec: Document) -> None:
    spec["channels"]["holds"]["x-bound-to"] = "seat.release.queue"


def other_exchange(spec: Document) -> None:
    spec["channels"]["releases"]["bindings"]["amqp"]["exchange"]["type"] = "fanout"


def transient(spec: Document) -> None:
    spec["channels"]["wakeUps"]["bindings"]["amqp"]["queue"]["durable"] = False


def passing(spec: Document) -> None:
    spec["channels"]["holds"]["bindings"]["amqp"]["exchange"]["autoDelete"] = True


QUEUE_BREAKS = (other_ttl, other_binding, other_exchange, transient, passing)


@pytest.mark.parametrize("breaks", QUEUE_BREAKS, ids=lambda breaks: breaks.__name__)
def test_changed_queue_is_found_out(breaks: Break) -> None:
    spec = load("queues")
    breaks(spec)
    assert list(drift.queues(spec, drift.definitions()))


def shouting(spec: Document) -> None:
    spec["operations"]["park"]["action"] = "shout"


def colourful(spec: Document) -> None:
    spec["channels"]["holds"]["colour"] = "red"


def unbound(spec: Document) -> None:
    spec["channels"]["holds"]["bindings"]["amqp"]["is"] = "topic"


def nowhere(spec: Document) -> None:
    spec["operations"]["park"]["channel"]["$ref"] = "#/channels/garage"


@pytest.mark.parametrize("breaks", [shouting, colourful, unbound, nowhere], ids=lambda breaks: breaks.__name__)
def test_document_that_is_not_asyncapi_is_found_out(breaks: Break) -> None:
    spec = load("queues")
    breaks(spec)
    assert list(drift.asyncapi(spec))


def a_request(collection: Document) -> Document:
    return next(item for folder in collection["item"] for item in folder["item"] if item["name"] == "Pay as the seller")


def ask_elsewhere(collection: Document) -> None:
    a_request(collection)["request"]["url"]["path"] = ["api", "buy"]


def send_something_else(collection: Document) -> None:
    a_request(collection)["request"]["body"]["raw"] = '{"order": "{{order_id}}"}'


def assert_something_else(collection: Document) -> None:
    a_request(collection)["event"][-1]["script"]["exec"][0] = "pm.test('418', () => {"


@pytest.mark.parametrize(
    "breaks", [ask_elsewhere, send_something_else, assert_something_else], ids=lambda b: b.__name__
)
def test_changed_postman_request_is_found_out(breaks: Break) -> None:
    collection = clients.read(clients.POSTMAN)
    breaks(collection)
    assert list(clients.postman(collection, bundle("gateway")))


@pytest.mark.parametrize(
    ("definition", "change"),
    [
        ("VerifyRequest", {"required": ["qr_payload"]}),
        ("VerifyData", {"properties": {"result": {"type": "string"}}}),
        ("LoginData", {"type": "array"}),
    ],
)
def test_changed_outsystems_definition_is_found_out(definition: str, change: dict[str, Any]) -> None:
    swagger = clients.read(clients.OUTSYSTEMS)
    swagger["definitions"][definition] |= change
    assert list(clients.outsystems(swagger, bundle("gateway")))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("int32 ttl_seconds = 4;", "string ttl_seconds = 4;", "another type"),
        ("int32 ttl_seconds = 4;", "int32 ttl_seconds = 14;", "not reserved"),
        ("rpc ReserveSeat(ReserveSeatRequest) returns (Hold);", "", "gone"),
        ("inventory.v1;", "inventory.v2;", "became"),
    ],
)
def test_breaking_change_of_the_proto_is_found_out(old: str, new: str, said: str) -> None:
    text = (ROOT / protos.FILE).read_text()
    assert old in text
    before, after = next(protos.released()), protos.described(text.replace(old, new))
    assert any(said in problem for problem in protos.breaking(before, after))


@pytest.mark.parametrize(
    ("old", "new"),
    [("inventory.v1;", "inventory;"), ("ttl_seconds = 4", "ttlSeconds = 4"), ("rpc ReserveSeat", "rpc reserveSeat")],
)
def test_badly_written_proto_is_found_out(old: str, new: str) -> None:
    text = (ROOT / protos.FILE).read_text()
    assert old in text
    assert list(protos.lint(protos.described(text.replace(old, new))))
