"""Stubs and recorded answers say what the specs say; one that does not is told, and so is one that nobody judges."""

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
from tests.support.stubs import Drifted, Stubs, example, fits

pytestmark = pytest.mark.contract
SEND, INTENTS = "http://smu.test/SendOTP", "http://stripe.test/v1/payment_intents"
SEAM = ["method", "url", "body", "headers", "timeout"]
SENT = {"VerificationSid": "VE1", "Success": True, "ErrorMessage": ""}
INTENT = example("stripe", "POST", "/v1/payment_intents", 200)


# ── recorded by the fakes, while services and people spoke with them


@pytest.mark.usefixtures("said")
def test_every_answer_in_the_fake_smus_journal_is_as_specified(
    session: Session, contracts: dict[str, Contract]
) -> None:
    recorded = [
        Exchange("smu", call["method"], call["path"], call["status"], {}, json.dumps(call["answer"]).encode())
        for call in Fake(session.url("smu")).journal()
        if call["fault"] is None and call["answer"] is not None
    ]
    assert {"/SendOTP", "/VerifyOTP", "/SendSMS", "/SendEmail"} <= {exchange.path for exchange in recorded}
    assert [found for one in recorded for found in contracts["smu"].violations(one, body_only=True)] == []


@pytest.mark.usefixtures("said")
def test_every_webhook_that_the_fake_stripe_sends_is_as_specified(session: Session) -> None:
    document = bundle("stripe")
    events = Fake(session.url("stripe")).ask("snapshot", "GET")["store"]["events"].values()
    assert {"payment_intent.created", "payment_intent.succeeded"} <= {event["type"] for event in events}
    assert [found for event in events for found in wrong_event(document, event)] == []
    assert list(wrong_event(document, {**next(iter(events)), "livemode": True}))


def wrong_event(document: Document, event: Any) -> Iterator[str]:
    operation = document["webhooks"]["event"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    about = {"$ref": "#/components/schemas/PaymentIntent"} if event["type"].startswith("payment_intent.") else {}
    for part, body in ((schema, event), (about, event["data"]["object"])):
        validator = jsonschema_rs.Draft202012Validator({**part, "components": document["components"]})
        yield from (f"{event['type']}: {error.message[:300]}" for error in validator.iter_errors(body))


# ── stubs


def tried(verb: str, url: str, **answer: Any) -> None:
    """A stub's whole life: made by `verb`, asked, looked back at."""
    with Stubs() as stub:
        getattr(stub, verb)("POST", url, **answer)
        with suppress(requests.ConnectionError):
            requests.post(url, timeout=5)
        assert stub.calls


TRUE: list[tuple[str, dict[str, Any]]] = [
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
    "an address that is none": ("http://smu.test/SendPigeon", {"json": SENT}),
    "no answer": (SEND, {"body": requests.ConnectionError("reset")}),
    "an intent without its amount": (INTENTS, {"json": {k: v for k, v in INTENT.items() if k != "amount"}}),
    "an intent in another state": (INTENTS, {"json": {**INTENT, "status": "paid"}}),
    "a header is missing": (INTENTS, {"json": INTENT, "headers": {}}),
}


@pytest.mark.parametrize(("url", "answer"), TRUE, ids=str)
def test_stub_that_says_what_its_spec_says_may_not_be_called_misbehaving(url: str, answer: dict[str, Any]) -> None:
    tried("answers", url, **answer)
    with pytest.raises(Drifted, match="was to misbehave"):
        tried("misbehaves", url, **answer)


@pytest.mark.parametrize(("url", "answer"), BROKEN.values(), ids=BROKEN)
@pytest.mark.negative_control
def test_stub_that_has_drifted_is_found_out(url: str, answer: dict[str, Any]) -> None:
    tried("misbehaves", url, **answer)
    with pytest.raises(Drifted):
        tried("answers", url, **answer)


@pytest.mark.negative_control
def test_stub_made_past_the_judge_is_found_out() -> None:
    with pytest.raises(Drifted, match="nobody judges"):
        tried("add", SEND, json=SENT)


SEATS = {"event_id": "e0e0e0e0-0000-0000-0000-000000000001", "total_seats": 2, "available_seats": 1}


@pytest.mark.parametrize("broken", [{"total_seats": None}, {"available_seats": -1}, {"event_id": "one"}, {"held": 1}])
@pytest.mark.negative_control
def test_answer_at_the_transports_seam_that_has_drifted_is_found_out(broken: dict[str, Any]) -> None:
    def says(count: dict[str, Any]) -> bytes:
        return json.dumps({"success": True, "data": [count]}).encode()

    where = ("inventory", "GET", "http://inventory/seats/availability?event_id=x", 200)
    assert fits(*where, says(SEATS)) == (200, says(SEATS))
    with pytest.raises(Drifted):
        fits(*where, says({**SEATS, **broken}))
    with pytest.raises(Drifted):
        fits(*where, says(SEATS), wrong=True)


# ── nobody stubs past them


def test_every_stub_of_a_test_is_judged() -> None:
    found = [problem for file in sorted((ROOT / "tests").rglob("*.py")) for problem in unjudged(file, file.read_text())]
    assert found == []


UNJUDGED = {
    "a mock of its own": "import responses\nwith responses.RequestsMock() as stub: ...",
    "a decorator": "import responses\n@responses.activate\ndef test(): ...",
    "a function at the seam": "def answered(method, url, body, headers, timeout):\n    return 200, b'{}'",
    "a class at the seam": "class Order:\n    def __call__(self, method, url, _body, _headers, _timeout): ...",
    "a transport of urllib3's": "from unittest.mock import patch\npatch('urllib3.PoolManager.request')",
}


@pytest.mark.parametrize("text", UNJUDGED.values(), ids=UNJUDGED)
@pytest.mark.negative_control
def test_stub_that_nobody_judges_is_found_out(text: str) -> None:
    assert list(unjudged(ROOT / "tests" / "unit" / "test_something.py", text))


def unjudged(file: Path, text: str) -> Iterator[str]:
    """Stubs in a test's code past `tests.support.stubs`. The fault matrix carries calls to the services' own code."""
    where = file.relative_to(ROOT)
    if where.parts[1] == "saga" or where.name in ("stubs.py", "test_stubs.py"):
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import) and any(name.name == "responses" for name in node.names):
            yield f"{where}: `responses` goes through tests.support.stubs"
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("urllib3."):
            yield f"{where}: {node.value} is no seam"
        if isinstance(node, ast.FunctionDef) and at_the_seam(node) and "fits" not in called(node):
            yield f"{where}: {node.name} answers at the transport's seam without fits()"


def at_the_seam(function: ast.FunctionDef) -> bool:
    names = [argument.arg.lstrip("_") for argument in function.args.args if argument.arg != "self"]
    return names[: len(SEAM)] == SEAM


def called(function: ast.FunctionDef) -> set[str]:
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    return {call.id for call in calls if isinstance(call, ast.Name)}
