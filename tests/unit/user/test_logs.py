"""No code, token, password, key or whole phone number in any log line (D35)."""

from __future__ import annotations

import logging
from typing import Any
from uuid import uuid4

import pytest
import requests
import stripe

from services.chassis.logs import JsonFormatter
from tests.support.service_settings import key_environment, new_key
from tests.support.stubs import Stubs, example
from tests.unit.user.user_app import SMU_KEY, SMU_URL, STRIPE_BASE, STRIPE_KEY, WEBHOOK_SECRET, UserApp

pytestmark = pytest.mark.unit

PASSWORD, CODE, SID, CLIENT_SECRET = "a-password-to-hide", "739105", "VEhidden", "pi_1_secret_hidden"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of the process, with its levels and formatter."""
    for noisy in ("urllib3", "stripe"):
        caplog.set_level(logging.WARNING, noisy)
    caplog.set_level(logging.INFO)
    caplog.handler.setFormatter(JsonFormatter("user-service"))
    return caplog


def test_no_log_line_shows_a_secret(users: UserApp, lines: pytest.LogCaptureFixture) -> None:
    email = f"{uuid4()}@example.com"
    phone = f"+65{uuid4().int % 10**8:08d}"
    with Stubs() as stub:
        session = use_every_secret(users, stub, email, phone)
    secrets = [phone, phone[1:], PASSWORD, CODE, SID, CLIENT_SECRET, SMU_KEY, STRIPE_KEY, WEBHOOK_SECRET]
    secrets += [
        key_environment("user-service")["PRIVATE_KEY"],
        session["access_token"],
        session["refresh_token"],
        "$2b$",
        "Bearer",
    ]
    assert len(lines.records) > 30
    assert [secret for secret in secrets if secret in lines.text] == []
    assert f"…{phone[-4:]}" in lines.text


def use_every_secret(users: UserApp, stub: Stubs, email: str, phone: str) -> dict[str, str]:
    """Call every route that handles a secret, with success and with failure. Returns the session."""
    person = {"email": email, "phone": phone, "password": PASSWORD}
    added = users.call_public("POST", "/api/auth/register", person).get_json()["data"]
    users.call_public("POST", "/api/auth/register", person)
    users.call_public("POST", "/api/auth/login", {"email": email, "password": PASSWORD + CODE})
    users.call_public("POST", "/api/auth/login", person)
    answer = users.call_public("POST", "/api/auth/login", {"email": email, "password": PASSWORD})
    session: dict[str, str] = answer.get_json()["data"]
    send_and_verify_codes(users, stub, added["user_id"], phone)
    pay(users, stub, added["user_id"])
    for path, token in (("refresh", "refresh_token"), ("refresh", "access_token"), ("logout", "access_token")):
        users.call_public("POST", f"/api/auth/{path}", Authorization=f"Bearer {session[token]}")
    return session


def send_and_verify_codes(users: UserApp, stub: Stubs, user_id: str, phone: str) -> None:
    refusal = {"Success": False, "ErrorMessage": f"60200: Invalid parameter To: {phone}"}
    sent = {"Success": True, "VerificationSid": SID, "ErrorMessage": ""}
    stub.respond("POST", f"{SMU_URL}/SendOTP", json=sent)
    users.call("POST", "/otp/send", {"user_id": user_id})
    sends: list[dict[str, Any]] = [
        {"json": refusal}, {"body": f"<p>{phone}"},
        {"status": 500, "json": refusal}, {"body": requests.ConnectionError(phone)},
    ]  # fmt: skip
    for answer in sends:
        stub.respond_wrongly("POST", f"{SMU_URL}/SendOTP", instead=True, **answer)
        users.call("POST", "/otp/send", {"user_id": user_id})
    guess = {"verification_sid": SID, "otp_code": CODE}
    stub.respond("POST", f"{SMU_URL}/VerifyOTP", json={"Success": True, "Status": "pending", "ErrorMessage": ""})
    users.call("POST", "/otp/verify", guess)
    verdicts: list[dict[str, Any]] = [{"json": refusal}, {"body": requests.Timeout(CODE)}]
    for answer in verdicts:
        stub.respond_wrongly("POST", f"{SMU_URL}/VerifyOTP", instead=True, **answer)
        users.call("POST", "/otp/verify", guess)
    stub.respond("POST", f"{SMU_URL}/SendSMS", json={"status": "queued"})
    users.call("POST", "/notifications", {"notices": [{"user_id": user_id, "message": "transfer_completed"}]})


def pay(users: UserApp, stub: Stubs, user_id: str) -> None:
    def top_up() -> None:
        users.call("POST", "/credits/topup", {"key": new_key(), "user_id": user_id, "amount": 20})

    url = f"{STRIPE_BASE}/v1/payment_intents"
    intent = {**example("stripe", "POST", "/v1/payment_intents", 200), "client_secret": CLIENT_SECRET}
    refused = {"error": {"type": "invalid_request_error", "message": f"Invalid API Key provided: {STRIPE_KEY}"}}
    answers: list[dict[str, Any]] = [{"json": intent}, {"status": 401, "json": refused}]
    for answer in answers:
        stub.respond("POST", url, instead=True, **answer)
        top_up()
    stub.respond_wrongly("POST", url, instead=True, status=500, json=refused)
    stub.respond_wrongly("GET", url, body=requests.ConnectionError(STRIPE_KEY))
    top_up()
    for secret in (WEBHOOK_SECRET, "whsec_forged"):
        signature = stripe.WebhookSignature.generate_signature_header("{}", secret)
        users.call_public("POST", "/api/webhooks/stripe", b"{}", **{"Stripe-Signature": signature})


def test_database_fault_logs_no_row(users: UserApp, lines: pytest.LogCaptureFixture) -> None:
    """The log of a PostgreSQL error contains neither parameters nor values of the row."""
    user = users.new_user("10.00")
    phone = users.account(user)["phone"]
    with users.db.transaction() as tx:
        tx.run("ALTER TABLE users ADD CONSTRAINT broken CHECK (password_hash <> 'no password') NOT VALID")
    try:
        answer = users.call("POST", "/credits/deduct", {"key": new_key(), "user_id": user, "amount": 1})
    finally:
        with users.db.transaction() as tx:
            tx.run("ALTER TABLE users DROP CONSTRAINT broken")
    assert answer.status_code == 500
    assert "broken" in lines.text
    assert [secret for secret in (phone, "no password") if secret in lines.text] == []
