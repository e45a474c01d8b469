"""The User service against the fakes of SMU and Stripe, over real sockets both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any
from uuid import UUID

import pytest
import requests
from werkzeug.serving import make_server

from services.chassis.settings import DatabaseSettings
from services.user import payments
from services.user import smu as smu_module
from tests.support.concurrency import run_concurrently
from tests.support.fake_servers import FakeServer, running
from tests.support.waiting import wait_until
from tests.unit.user.user_app import (
    SMU_KEY,
    STRIPE_KEY,
    WEBHOOK_SECRET,
    UserApp,
    key,
    refusal,
    user_settings,
)

pytestmark = pytest.mark.unit
TIMEOUT_SECONDS = 10.0  # a busy machine can delay a fake


@pytest.fixture(scope="module")
def smu() -> Iterator[FakeServer]:
    with running("fakes.smu", SMU_API_KEY=SMU_KEY) as server:
        yield server


@pytest.fixture(scope="module")
def stripe_server() -> Iterator[FakeServer]:
    secrets = {"STRIPE_SECRET_KEY": STRIPE_KEY, "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET, "STRIPE_WEBHOOK_URL": ""}
    with running("fakes.stripe", **secrets) as server:
        yield server


@pytest.fixture
def users(
    database_for: Callable[[str], DatabaseSettings],
    smu: FakeServer,
    stripe_server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[UserApp]:
    """The service, patient with a busy machine, and its webhook where the fake Stripe can reach it."""
    for outside in (smu_module, payments):
        monkeypatch.setattr(outside, "TIMEOUT", (TIMEOUT_SECONDS, TIMEOUT_SECONDS))
    service = UserApp(user_settings(database_for("user"), smu_url=smu.url, stripe_base=stripe_server.url))
    server = make_server("127.0.0.1", 0, service.app, threaded=True)
    server.daemon_threads = False  # type: ignore[attr-defined]  # so that closing waits for the deliveries under way
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    for fake in (smu, stripe_server):
        fake.control("reset")
    stripe_server.control("webhooks", url=f"http://127.0.0.1:{server.server_port}/api/webhooks/stripe", backoff_ms=20)
    yield service
    stripe_server.control("reset")
    server.shutdown()
    thread.join()
    server.server_close()
    service.db.close()


def pay(stripe_server: FakeServer, intent: str, card: str = "pm_card_visa") -> int:
    """What the payer's browser does; the status of Stripe's answer."""
    url = f"{stripe_server.url}/v1/payment_intents/{intent}/confirm"
    return requests.post(url, data={"payment_method": card}, auth=(STRIPE_KEY, ""), timeout=5).status_code


def delivered(stripe_server: FakeServer) -> list[int]:
    """The statuses of all deliveries of webhooks."""
    return [one["status"] for one in stripe_server.read("deliveries")["deliveries"]]


def intents(stripe_server: FakeServer) -> list[dict[str, Any]]:
    answer = requests.get(f"{stripe_server.url}/v1/payment_intents", auth=(STRIPE_KEY, ""), timeout=5)
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def top_up(users: UserApp, user: UUID, once: str | None = None) -> str:
    made = users.done("/credits/topup", key=once or key("create"), user_id=user, amount=50)
    return str(made["payment_intent_id"])


def code_of(smu: FakeServer, users: UserApp, user: UUID) -> str:
    mobile = users.account(user)["phone"]
    inbox = requests.get(
        f"{smu.url}/inbox", params={"mobile": mobile}, timeout=5, headers={"Accept": "application/json"}
    )
    return str(inbox.json()["messages"][0]["code"])


@pytest.mark.claim("stripe/payment-intent", "stripe/webhook-reports-payment")
def test_a_card_payment_becomes_credits_once_however_often_it_is_told(
    users: UserApp, stripe_server: FakeServer
) -> None:
    stripe_server.control("webhooks", copies=5)
    user = users.new_user("0.00")
    intent = top_up(users, user)
    assert pay(stripe_server, intent) == 200
    wait_until(lambda: delivered(stripe_server) == [200] * 10)  # created and succeeded, five copies each
    assert users.balance(user) == 50
    pay(stripe_server, intent)
    assert users.balance(user) == 50


def test_a_declined_card_credits_nothing(users: UserApp, stripe_server: FakeServer) -> None:
    user = users.new_user("0.00")
    assert pay(stripe_server, top_up(users, user), "pm_card_chargeDeclined") == 402
    wait_until(lambda: delivered(stripe_server) == [200] * 2)
    assert users.balance(user) == 0


def test_the_same_key_makes_one_intent(users: UserApp, stripe_server: FakeServer) -> None:
    user, once = users.new_user(), key("create")
    assert top_up(users, user, once) == top_up(users, user, once)
    assert len(intents(stripe_server)) == 1


def test_the_same_key_for_another_amount_is_422(users: UserApp) -> None:
    user, once = users.new_user(), key("create")
    top_up(users, user, once)
    again = users.call("POST", "/credits/topup", {"key": once, "user_id": user, "amount": 51})
    assert (again.status_code, refusal(again)) == (422, "IDEMPOTENCY_KEY_REUSED")


@pytest.mark.parametrize(
    "fault", [{"kind": "drop"}, {"kind": "truncate"}, {"kind": "status", "status": 500, "effect": True}]
)
def test_an_intent_whose_answer_was_lost_is_found_again(
    users: UserApp, stripe_server: FakeServer, fault: dict[str, Any]
) -> None:
    stripe_server.fault(path="/v1/payment_intents", method="POST", **fault)
    intent = top_up(users, users.new_user())
    assert [one["id"] for one in intents(stripe_server)] == [intent]


def test_a_500_that_made_nothing_is_tried_again(users: UserApp, stripe_server: FakeServer) -> None:
    stripe_server.fault("status", "/v1/payment_intents", method="POST", status=500)
    intent = top_up(users, users.new_user())
    assert [one["id"] for one in intents(stripe_server)] == [intent]


def test_stripe_unreachable_is_503_and_the_same_key_succeeds_later(users: UserApp, stripe_server: FakeServer) -> None:
    user, once = users.new_user(), key("create")
    stripe_server.fault("reset", "/v1/payment_intents", count=2)  # the creation and the look-up
    body = {"key": once, "user_id": user, "amount": 50}
    assert users.call("POST", "/credits/topup", body).status_code == 503
    assert users.call("POST", "/credits/topup", body).status_code == 200
    assert len(intents(stripe_server)) == 1


@pytest.mark.claim("smu/send-otp", "smu/verify-otp", "smu/approved-code")
def test_a_code_is_sent_judged_and_used_up(users: UserApp, smu: FakeServer) -> None:
    user = users.new_user()
    sid = users.done("/otp/send", user_id=user)["verification_sid"]
    right = code_of(smu, users, user)
    wrong = "000000" if right != "000000" else "111111"
    judged = [
        users.done("/otp/verify", verification_sid=sid, otp_code=code)["status"] for code in (wrong, right, right)
    ]
    assert judged == ["pending", "approved", "expired"]


def test_an_unknown_verification_is_expired(users: UserApp) -> None:
    assert users.done("/otp/verify", verification_sid="VE0", otp_code="123456") == {"status": "expired"}


def test_one_code_approves_once_however_often_it_is_sent(users: UserApp, smu: FakeServer) -> None:
    user = users.new_user()
    sid = users.done("/otp/send", user_id=user)["verification_sid"]
    code = code_of(smu, users, user)
    works = [lambda: users.done("/otp/verify", verification_sid=sid, otp_code=code)["status"]] * 5
    assert sorted(run_concurrently(works)) == ["approved"] + ["expired"] * 4


@pytest.mark.parametrize("kind", ["refuse", "reset", "drop", "truncate", "status"])
def test_smu_that_does_not_answer_is_503(users: UserApp, smu: FakeServer, kind: str) -> None:
    smu.fault(kind, "/SendOTP")
    assert users.call("POST", "/otp/send", {"user_id": users.new_user()}).status_code == 503


def test_smu_that_hangs_is_given_up(users: UserApp, smu: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smu_module, "TIMEOUT", (TIMEOUT_SECONDS, 0.3))
    smu.fault("hang", "/SendOTP", ms=10_000)
    assert users.call("POST", "/otp/send", {"user_id": users.new_user()}).status_code == 503


def test_messages_arrive(users: UserApp, smu: FakeServer) -> None:
    user = users.new_user()
    for message in ("transfer_completed", "booking_confirmed"):
        users.done("/notifications", user_id=user, message=message, fields={"event_name": "Night"})
    sent = [call for call in smu.journal() if call["path"].startswith(("/SendSMS", "/SendEmail"))]
    assert [call["status"] for call in sent] == [200, 200]
