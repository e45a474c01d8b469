"""Files that state the same fact agree: specs, code, gateway, broker, generated files, and files for other teams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR, SWAGGER_20_VALIDATOR

from harness.dev import api_reference
from harness.dev.grpc_codegen import generate
from harness.dev.spec_bundle import SERVED, SHARED, Document, bundle, load, operations, resolve
from harness.runtime.compose import ROOT
from services.chassis import json_codec
from services.orchestrator.participants import HoldMessages
from tests.contract import client_files, drift, protos

pytestmark = pytest.mark.contract


@pytest.mark.parametrize("name", [*SERVED, *SHARED])
def test_spec_is_valid_openapi(name: str) -> None:
    assert [error.message for error in OPENAPI_31_VALIDATOR.iter_errors(load(name))] == []


@pytest.mark.parametrize("name", SERVED)
def test_every_example_fits_its_schema(name: str) -> None:
    document = bundle(name)
    wrong = []
    for method, path, operation in operations(document):
        medias = list(list_examples(document, operation))
        assert medias, f"{method} {path} has no example"
        for schema, example in medias:
            validator = jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
            wrong += [f"{method} {path}: {error.message}" for error in validator.iter_errors(example)]
    assert wrong == []


def list_examples(document: Document, operation: Document) -> Iterator[tuple[Document, object]]:
    contents = [operation.get("requestBody", {}).get("content", {})]
    contents += [resolve(document, answer).get("content", {}) for answer in operation["responses"].values()]
    for media in (media for content in contents for media in content.values()):
        if "example" in media:
            yield media["schema"], media["example"]
        yield from ((media["schema"], entry["value"]) for entry in media.get("examples", {}).values())


@pytest.mark.claim("layers/gateway-guards-routes", "repository/kong-file")
def test_kong_routes_match_the_public_spec() -> None:
    assert list(drift.check_gateway(drift.load_kong_config(), bundle("gateway"))) == []


@pytest.mark.claim(
    "protocols/rest-to-other-services", "layers/user-over-rest", "layers/order-over-rest", "layers/event-over-rest"
)
@pytest.mark.parametrize("server", ["orchestrator", "user", "order", "event", "inventory"])
def test_routes_in_the_code_match_the_spec(server: str) -> None:
    assert list(drift.check_routes(server, bundle(server))) == []


def test_error_table_matches_specs_and_services() -> None:
    assert list(drift.check_error_codes(drift.load_error_responses(), drift.load_specs())) == []


def test_queues_file_is_valid_asyncapi() -> None:
    assert list(drift.check_asyncapi(load("queues"))) == []


@pytest.mark.claim("queue/definitions-file", "repository/rabbitmq-files")
def test_queues_match_the_definitions_of_rabbitmq() -> None:
    assert list(drift.check_queues(load("queues"), drift.load_definitions())) == []


@pytest.mark.claim("queue/message-fields")
def test_published_message_matches_its_spec() -> None:
    sent: list[bytes] = []

    class FakePublisher:
        def send(self, *message: Any, **properties: Any) -> None:
            """Send nothing early."""

        def publish(self, *message: Any, **properties: Any) -> None:
            sent.append(message[2])

    spec = load("queues")
    hold = spec["components"]["messages"]["hold"]["examples"][0]["payload"]
    HoldMessages(FakePublisher()).publish(hold["seat_id"], hold["user_id"], hold["order_id"], 300)
    validator = jsonschema_rs.Draft202012Validator(drift.load_message_schema(spec), validate_formats=True)
    assert [error.message for error in validator.iter_errors(json_codec.decode(sent[0]))] == []


@pytest.mark.claim("testing/postman-collection")
def test_postman_collection_matches_the_public_spec() -> None:
    assert list(client_files.check_postman(client_files.read(client_files.POSTMAN), bundle("gateway"))) == []


@pytest.mark.claim("layers/client-imports-scan-api", "repository/outsystems-files")
def test_outsystems_file_is_valid_and_matches_the_public_spec() -> None:
    swagger = client_files.read(client_files.OUTSYSTEMS)
    assert [error.message for error in SWAGGER_20_VALIDATOR.iter_errors(swagger)] == []
    assert list(client_files.check_outsystems(swagger, bundle("gateway"))) == []


@pytest.mark.claim("layers/inventory-over-grpc")
def test_generated_grpc_code_is_current(tmp_path: Path) -> None:
    assert generate(tmp_path) == 0
    committed = ROOT / "services" / "contracts" / "pb"
    for file in tmp_path.iterdir():
        assert file.read_text() == (committed / file.name).read_text(), f"{file.name} is out of date: make proto"


def test_proto_follows_its_style_and_breaks_no_client() -> None:
    now = protos.parse_proto((ROOT / protos.FILE).read_text())
    assert list(protos.lint(now)) == []
    for released in protos.load_released():
        assert list(protos.find_breaking_changes(released, now)) == []


@pytest.mark.claim("repository/api-page")
def test_api_page_is_current() -> None:
    assert api_reference.TARGET.read_text() == api_reference.render(), "run python -m harness.dev.api_reference"
