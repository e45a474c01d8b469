"""Stubs and recorded answers match the specs. A stub that drifts from its spec, or is not checked, fails."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import requests

from harness.dev.spec_bundle import Document, bundle
from harness.runtime.compose import ROOT
from tests.contract.conftest import Session
from tests.contract.exchanges import Contract, Exchange
from tests.support.fakes_control import Fake
from tests.support.stubs import StubDrift, Stubs, check_response, example

pytestmark = pytest.mark.contract
SEND, INTENTS = "http://smu.test/SendOTP", "http://stripe.test/v1/payment_intents"
TRANSPORT = ["method", "url", "body", "headers", "timeout"]
SENT = {"VerificationSid": "VE1", "Success": True, "ErrorMessage": ""}
INTENT = example("stripe", "POST", "/v1/payment_intents", 200)


# ── answers that the fakes recorded


@pytest.mark.usefixtures("exchanges")
def test_every_answer_in_the_fake_smus_journal_matches_the_spec(
    session: Session, contracts: dict[str, Contract]
) -> None:
    recorded = [
        Exchange("smu", call["method"], call["path"], call["status"], {}, json.dumps(call["answer"]).encode())
        for call in Fake(session.url("smu")).journal()
        if call["fault"] is None and call["answer"] is not None
    ]
    assert {"/SendOTP", "/VerifyOTP", "/SendSMS", "/SendEmail"} <= {exchange.path for exchange in recorded}
    assert [found for one in recorded for found in contracts["smu"].violations(one, body_only=True)] == []


@pytest.mark.usefixtures("exchanges")
def test_every_webhook_of_the_fake_stripe_matches_the_spec(session: Session) -> None:
    document = bundle("stripe")
    events = Fake(session.url("stripe")).read("snapshot")["store"]["events"].values()
    assert {"payment_intent.created", "payment_intent.succeeded"} <= {event["type"] for event in events}
    assert [found for event in events for found in find_event_errors(document, event)] == []
    assert list(find_event_errors(document, {**next(iter(events)), "livemode": True}))


def find_event_errors(document: Document, event: Any) -> Iterator[str]:
    operation = document["webhooks"]["event"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    about = {"$ref": "#/components/schemas/PaymentIntent"} if event["type"].startswith("payment_intent.") else {}
    for part, body in ((schema, event), (about, event["data"]["object"])):
        validator = jsonschema_rs.Draft202012Validator({**part, "components": document["components"]})
        yield from (f"{event['type']}: {error.message[:300]}" for error in validator.iter_errors(body))


# ── stubs


def use_stub(verb: str, url: str, **answer: Any) -> None:
    """Make a stub with the method `verb`, call it once, and let it check its answer."""
    with Stubs() as stub:
        getattr(stub, verb)("POST", url, **answer)
        with suppress(requests.ConnectionError):
            requests.post(url, timeout=5)
        assert stub.calls


VALID: list[tuple[str, dict[str, Any]]] = [
    (SEND, {"json": SENT}),
    (SEND, {"status": 401, "json": {"Errors": ["Invalid or missing X-Contacts-Key"], "StatusCode": 401}}),
    (INTENTS, {"json": INTENT}),
]
BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "a field is missing": (SEND, {"json": {"VerificationSid": "VE1", "Success": True}}),
    "a field too many": (SEND, {"json": {**SENT, "Sid": "VE1"}}),
    "a wrong type": (SEND, {"json": {**SENT, "Success": "true"}}),
    "another name": (SEND, {"json": {"verificationSid": "VE1", "Success": True, "ErrorMessage": ""}}),
    "an undocumented status": (SEND, {"json": SENT, "status": 202}),
    "no JSON": (SEND, {"body": "sent", "content_type": "application/json"}),
    "another media type": (SEND, {"body": json.dumps(SENT), "content_type": "text/plain"}),
    "an unknown address": ("http://smu.test/SendPigeon", {"json": SENT}),
    "no answer": (SEND, {"body": requests.ConnectionError("reset")}),
    "an intent without its amount": (INTENTS, {"json": {k: v for k, v in INTENT.items() if k != "amount"}}),
    "an intent in another state": (INTENTS, {"json": {**INTENT, "status": "paid"}}),
    "a header is missing": (INTENTS, {"json": INTENT, "headers": {}}),
}


@pytest.mark.parametrize(("url", "answer"), VALID, ids=str)
def test_stub_that_matches_its_spec_is_not_misbehaving(url: str, answer: dict[str, Any]) -> None:
    use_stub("respond", url, **answer)
    with pytest.raises(StubDrift, match="the spec allows this"):
        use_stub("respond_wrongly", url, **answer)


@pytest.mark.parametrize(("url", "answer"), BROKEN.values(), ids=BROKEN)
@pytest.mark.negative_control
def test_stub_that_drifted_from_its_spec_is_found(url: str, answer: dict[str, Any]) -> None:
    use_stub("respond_wrongly", url, **answer)
    with pytest.raises(StubDrift):
        use_stub("respond", url, **answer)


@pytest.mark.negative_control
def test_stub_that_bypasses_the_check_is_found() -> None:
    with pytest.raises(StubDrift, match="was not stubbed"):
        use_stub("add", SEND, json=SENT)


SEATS = {"event_id": "e0e0e0e0-0000-0000-0000-000000000001", "total_seats": 2, "available_seats": 1}


@pytest.mark.parametrize("broken", [{"total_seats": None}, {"available_seats": -1}, {"event_id": "one"}, {"held": 1}])
@pytest.mark.negative_control
def test_transport_stub_that_drifted_from_its_spec_is_found(broken: dict[str, Any]) -> None:
    def encode(count: dict[str, Any]) -> bytes:
        return json.dumps({"success": True, "data": [count]}).encode()

    where = ("inventory", "GET", "http://inventory/seats/availability?event_id=x", 200)
    assert check_response(*where, encode(SEATS)) == (200, encode(SEATS))
    with pytest.raises(StubDrift):
        check_response(*where, encode({**SEATS, **broken}))
    with pytest.raises(StubDrift):
        check_response(*where, encode(SEATS), wrong=True)


# ── stubs that bypass the check


def test_every_stub_of_a_test_is_checked() -> None:
    found = [
        problem
        for file in sorted((ROOT / "tests").rglob("*.py"))
        for problem in find_unchecked_stubs(file, file.read_text())
    ]
    assert found == []


UNCHECKED = {
    "a mock of its own": "import responses\nwith responses.RequestsMock() as stub: ...",
    "a decorator": "import responses\n@responses.activate\ndef test(): ...",
    "a transport function": "def send(method, url, body, headers, timeout):\n    return 200, b'{}'",
    "a transport class": "class Order:\n    def __call__(self, method, url, _body, _headers, _timeout): ...",
    "a patch of urllib3": "from unittest.mock import patch\npatch('urllib3.PoolManager.request')",
}


@pytest.mark.parametrize("text", UNCHECKED.values(), ids=UNCHECKED)
@pytest.mark.negative_control
def test_unchecked_stub_is_found(text: str) -> None:
    assert list(find_unchecked_stubs(ROOT / "tests" / "unit" / "test_something.py", text))


def find_unchecked_stubs(file: Path, text: str) -> Iterator[str]:
    """Yield the stubs in a test that bypass `tests.support.stubs`.

    The saga suites are exempt, because their transport calls the real code of the services.
    """
    where = file.relative_to(ROOT)
    if where.parts[1] == "saga" or where.name in ("stubs.py", "test_stubs.py"):
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import) and any(name.name == "responses" for name in node.names):
            yield f"{where}: use tests.support.stubs instead of `responses`"
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("urllib3."):
            yield f"{where}: do not patch {node.value}: use tests.support.stubs"
        if (
            isinstance(node, ast.FunctionDef)
            and has_transport_signature(node)
            and "check_response" not in list_calls(node)
        ):
            yield f"{where}: {node.name} is a transport without check_response()"


def has_transport_signature(function: ast.FunctionDef) -> bool:
    names = [argument.arg.lstrip("_") for argument in function.args.args if argument.arg != "self"]
    return names[: len(TRANSPORT)] == TRANSPORT


def list_calls(function: ast.FunctionDef) -> set[str]:
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    return {call.id for call in calls if isinstance(call, ast.Name)}
