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
from tests.support.fake_servers import is_healthy, running
from tests.support.fakes_control import Fake
from tests.support.service_settings import new_key
from tests.support.waiting import wait_until
from tests.unit.user.user_app import SMU_KEY, STRIPE_KEY, WEBHOOK_SECRET, UserApp, user_settings

pytestmark = pytest.mark.unit
TIMEOUT_SECONDS = 10.0  # a busy machine can delay a fake


@pytest.fixture(scope="module")
def smu() -> Iterator[Fake]:
    with running("fakes.smu", SMU_API_KEY=SMU_KEY) as server:
        yield server


@pytest.fixture(scope="module")
def stripe_server() -> Iterator[Fake]:
    secrets = {"STRIPE_SECRET_KEY": STRIPE_KEY, "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET, "STRIPE_WEBHOOK_URL": ""}
    with running("fakes.stripe", **secrets) as server:
        yield server


@pytest.fixture
def users(
    database_for: Callable[[str], DatabaseSettings],
    smu: Fake,
    stripe_server: Fake,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[UserApp]:
    """The service, with long timeouts for a busy machine and a webhook address that the fake Stripe can reach."""
    for client in (smu_module, payments):
        monkeypatch.setattr(client, "TIMEOUT", (TIMEOUT_SECONDS, TIMEOUT_SECONDS))
    service = UserApp(user_settings(database_for("user"), smu_url=smu.url, stripe_base=stripe_server.url))
    server = make_server("127.0.0.1", 0, service.app, threaded=True)
    server.daemon_threads = False  # type: ignore[attr-defined]  # server_close() waits for deliveries in progress
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


def pay(stripe_server: Fake, intent: str, card: str = "pm_card_visa") -> int:
    """Pay as the payer's browser, and return the status of Stripe's answer."""
    url = f"{stripe_server.url}/v1/payment_intents/{intent}/confirm"
    return requests.post(url, data={"payment_method": card}, auth=(STRIPE_KEY, ""), timeout=5).status_code


def delivery_statuses(stripe_server: Fake) -> list[int]:
    """Return the status of each webhook delivery."""
    return [delivery["status"] for delivery in stripe_server.read("deliveries")["deliveries"]]


def intents(stripe_server: Fake) -> list[dict[str, Any]]:
    answer = requests.get(f"{stripe_server.url}/v1/payment_intents", auth=(STRIPE_KEY, ""), timeout=5)
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def top_up(users: UserApp, user: UUID, once: str | None = None) -> str:
    intent = users.post("/credits/topup", key=once or new_key("create"), user_id=user, amount=50)
    return str(intent["payment_intent_id"])


def read_code(smu: Fake, users: UserApp, user: UUID) -> str:
    mobile = users.account(user)["phone"]
    inbox = requests.get(
        f"{smu.url}/inbox", params={"mobile": mobile}, timeout=5, headers={"Accept": "application/json"}
    )
    return str(inbox.json()["messages"][0]["code"])


@pytest.mark.claim("stripe/payment-intent", "stripe/webhook-reports-payment")
def test_card_payment_credits_once(users: UserApp, stripe_server: Fake) -> None:
    stripe_server.control("webhooks", copies=5)
    user = users.new_user("0.00")
    intent = top_up(users, user)
    assert pay(stripe_server, intent) == 200
    wait_until(lambda: delivery_statuses(stripe_server) == [200] * 10)  # created and succeeded, five copies each
    assert users.balance(user) == 50
    pay(stripe_server, intent)
    assert users.balance(user) == 50


def test_declined_card_credits_nothing(users: UserApp, stripe_server: Fake) -> None:
    user = users.new_user("0.00")
    assert pay(stripe_server, top_up(users, user), "pm_card_chargeDeclined") == 402
    wait_until(lambda: delivery_statuses(stripe_server) == [200] * 2)
    assert users.balance(user) == 0


def test_repeated_top_up_makes_one_intent(users: UserApp, stripe_server: Fake) -> None:
    user, once = users.new_user(), new_key("create")
    assert top_up(users, user, once) == top_up(users, user, once)
    assert len(intents(stripe_server)) == 1


@pytest.mark.parametrize(
    "fault", [{"kind": "drop"}, {"kind": "truncate"}, {"kind": "status", "status": 500, "effect": True}]
)
def test_intent_with_a_lost_answer_is_found(users: UserApp, stripe_server: Fake, fault: dict[str, Any]) -> None:
    stripe_server.add_fault(path="/v1/payment_intents", method="POST", **fault)
    intent_id = top_up(users, users.new_user())
    assert [intent["id"] for intent in intents(stripe_server)] == [intent_id]


def test_500_without_an_intent_is_retried(users: UserApp, stripe_server: Fake) -> None:
    stripe_server.add_fault("status", "/v1/payment_intents", method="POST", status=500)
    intent_id = top_up(users, users.new_user())
    assert [intent["id"] for intent in intents(stripe_server)] == [intent_id]


def test_same_key_succeeds_after_an_outage_of_stripe(users: UserApp, stripe_server: Fake) -> None:
    user, once = users.new_user(), new_key("create")
    stripe_server.add_fault("reset", "/v1/payment_intents", count=2)  # the creation and the lookup
    body = {"key": once, "user_id": user, "amount": 50}
    assert users.call("POST", "/credits/topup", body).status_code == 503
    assert users.call("POST", "/credits/topup", body).status_code == 200
    assert len(intents(stripe_server)) == 1


@pytest.mark.claim("smu/send-otp", "smu/verify-otp", "smu/approved-code")
def test_code_is_sent_checked_and_used_up(users: UserApp, smu: Fake) -> None:
    user = users.new_user()
    sid = users.post("/otp/send", user_id=user)["verification_sid"]
    right = read_code(smu, users, user)
    wrong = "000000" if right != "000000" else "111111"
    verdicts = [
        users.post("/otp/verify", verification_sid=sid, otp_code=code)["status"] for code in (wrong, right, right)
    ]
    assert verdicts == ["pending", "approved", "expired"]


def test_concurrent_checks_of_one_code_approve_once(users: UserApp, smu: Fake) -> None:
    user = users.new_user()
    sid = users.post("/otp/send", user_id=user)["verification_sid"]
    code = read_code(smu, users, user)
    checks = [lambda: users.post("/otp/verify", verification_sid=sid, otp_code=code)["status"]] * 5
    assert sorted(run_concurrently(checks)) == ["approved"] + ["expired"] * 4


@pytest.mark.parametrize("kind", ["refuse", "reset", "drop", "truncate", "status"])
def test_smu_without_an_answer_is_503(users: UserApp, smu: Fake, kind: str) -> None:
    smu.add_fault(kind, "/SendOTP")
    assert users.call("POST", "/otp/send", {"user_id": users.new_user()}).status_code == 503
    wait_until(lambda: is_healthy(smu.url))  # `refuse` closes the port for a moment, and the next test needs it


def test_smu_that_hangs_is_503(users: UserApp, smu: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smu_module, "TIMEOUT", (TIMEOUT_SECONDS, 0.3))
    smu.add_fault("hang", "/SendOTP", ms=10_000)
    assert users.call("POST", "/otp/send", {"user_id": users.new_user()}).status_code == 503


def test_messages_arrive(users: UserApp, smu: Fake) -> None:
    user = users.new_user()
    notices = [
        {"user_id": user, "message": message, "fields": {"event_name": "Night"}}
        for message in ("transfer_completed", "booking_confirmed")
    ]
    assert users.post("/notifications", notices=notices)["sent"] == [True, True]
    sent = [call for call in smu.journal() if call["path"].startswith(("/SendSMS", "/SendEmail"))]
    assert [call["status"] for call in sent] == [200, 200]
