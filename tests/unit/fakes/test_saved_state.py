"""A fake that starts with the file of a killed one: nothing that it has acknowledged is lost.

The first app of each test never ends in an orderly way, so only what it has written counts.
"""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from fakes.smu import app as smu
from fakes.stripe import app as stripe
from fakes.stripe import webhooks
from tests.support.http_servers import AnsweringServer, Request
from tests.support.waiting import wait_until
from tests.unit.fakes.smu_client import KEY, MOBILE

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def state_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STATE_FILE", str(tmp_path / "state"))
    monkeypatch.setenv("STRIPE_WEBHOOK_URL", "")
    monkeypatch.delenv("STRIPE_SECRET_KEY", raising=False)
    return tmp_path / "state"


def call_smu(client: FlaskClient, path: str, **body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.post(path, json=body, headers={"X-Contacts-Key": KEY}).get_json()
    return answer


def read_inbox(client: FlaskClient) -> list[dict[str, Any]]:
    """Return the messages of the inbox, newest first."""
    messages: list[dict[str, Any]] = client.get("/inbox", headers={"Accept": "application/json"}).get_json()["messages"]
    return messages


def start_smu() -> FlaskClient:
    return smu.create_app(KEY).test_client()


def test_codes_and_inbox_survive_a_kill() -> None:
    first = start_smu()
    sids = [call_smu(first, "/SendOTP", Mobile=MOBILE)["VerificationSid"] for _ in range(3)]
    messages = read_inbox(first)
    call_smu(first, "/VerifyOTP", VerificationSid=sids[0], Code=messages[2]["code"])
    second = start_smu()
    assert read_inbox(second) == messages
    again = call_smu(second, "/VerifyOTP", VerificationSid=sids[0], Code=messages[2]["code"])
    assert not again["Success"], "a code is approved once"
    assert call_smu(second, "/VerifyOTP", VerificationSid=sids[1], Code=messages[1]["code"])["Status"] == "approved"
    assert call_smu(second, "/SendOTP", Mobile=MOBILE)["VerificationSid"] not in sids
    assert len(read_inbox(start_smu())) == 4, "the file of a second start is complete"


def test_last_line_without_its_end_is_ignored(state_file: Path) -> None:
    call_smu(start_smu(), "/SendSMS", mobile=MOBILE, message="one")
    with state_file.open("a") as file:
        file.write('{"delivered": {"wh')
    second = start_smu()
    call_smu(second, "/SendSMS", mobile=MOBILE, message="two")
    assert [message["text"] for message in read_inbox(start_smu())] == ["two", "one"]


def test_reset_also_empties_the_file() -> None:
    first = start_smu()
    call_smu(first, "/SendSMS", mobile=MOBILE, message="one")
    first.post("/_control/reset", json={})
    assert read_inbox(start_smu()) == []


def post_stripe(client: FlaskClient, path: str, key: str = "", **params: Any) -> dict[str, Any]:
    headers = {"Authorization": "Bearer sk_test_any"} | ({"Idempotency-Key": key} if key else {})
    answer: dict[str, Any] = client.post(path, data=params, headers=headers).get_json()
    return answer


def pay(client: FlaskClient, key: str = "") -> dict[str, Any]:
    parameters = {"amount": 5000, "currency": "sgd", "confirm": "true", "payment_method": "pm_card_visa"}
    return post_stripe(client, "/v1/payment_intents", key, **parameters)


def test_payments_and_their_keys_survive_a_kill() -> None:
    first = stripe.create_app().test_client()
    paid = pay(first, "key")
    second = stripe.create_app().test_client()
    assert pay(second, "key") == paid
    refused = post_stripe(second, f"/v1/payment_intents/{paid['id']}/confirm")
    assert refused["error"]["payment_intent"]["status"] == "succeeded"


def test_webhook_that_was_being_delivered_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first app waits for its endpoint until the test ends, because its own retry would look like the second's."""
    monkeypatch.setattr(webhooks, "TIMEOUT_SECONDS", None)
    received: list[str] = []
    answer_first = threading.Event()

    def answer(request: Request) -> tuple[int, bytes]:
        received.append(json.loads(request.body)["id"])
        if len(received) == 1:
            answer_first.wait()
        return 200, b""

    with AnsweringServer(answer) as server, ExitStack() as at_end:
        at_end.callback(answer_first.set)
        monkeypatch.setenv("STRIPE_WEBHOOK_URL", f"{server.origin}/hook")
        first = stripe.create_app().test_client()
        post_stripe(first, "/v1/payment_intents", amount=5000, currency="sgd")
        wait_until(lambda: received)
        post_stripe(first, "/v1/payment_intents", amount=5000, currency="sgd")  # also saves the queue
        stripe.create_app()
        wait_until(lambda: len(received) > 1)
    assert received[0] == received[1]
