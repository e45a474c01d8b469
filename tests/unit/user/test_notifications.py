"""What users are told, by SMS and e-mail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.user import messages
from tests.support.stubs import Stubs
from tests.unit.user.user_app import SMU_URL, UserApp, refusal

pytestmark = pytest.mark.unit


@pytest.fixture
def smu() -> Iterator[Stubs]:
    with Stubs() as stub:
        stub.answers("POST", f"{SMU_URL}/SendSMS", json={"status": "queued"})
        stub.answers("POST", f"{SMU_URL}/SendEmail", json={"status": "sent"})
        yield stub


def notify(users: UserApp, user: UUID, message: str, **fields: Any) -> Any:
    return users.call("POST", "/notifications", {"user_id": user, "message": message, "fields": fields})


def sent(smu: Stubs) -> Any:
    return json.loads(smu.calls[-1].request.body or "")


@pytest.mark.claim("smu/send-sms")
def test_an_sms_goes_to_the_users_phone(users: UserApp, smu: Stubs) -> None:
    user = users.new_user()
    fields = {"transfer_id": "t-1", "event_name": "Night of 100 Seats", "credits_amount": Decimal("80.00")}
    answer = notify(users, user, "transfer_initiated", **fields)
    assert (answer.status_code, answer.get_json()["data"]) == (200, {"sent": True})
    assert sent(smu)["mobile"] == users.account(user)["phone"]
    for told in ("Night of 100 Seats", "80.00", "t-1"):
        assert told in sent(smu)["message"]


@pytest.mark.claim("smu/send-email")
def test_an_email_goes_to_the_users_address(users: UserApp, smu: Stubs) -> None:
    user = users.new_user()
    notify(users, user, "booking_confirmed", order_id="o-1", event_name="Night", credits_charged=Decimal("350.00"))
    assert sent(smu)["emailAddress"] == users.account(user)["email"]
    assert sent(smu)["emailSubject"] == "Your TicketRemaster booking"
    assert "350.00" in sent(smu)["emailBody"]


def test_what_fills_an_email_is_escaped(users: UserApp, smu: Stubs) -> None:
    notify(users, users.new_user(), "booking_confirmed", event_name="<script>x</script>")
    assert "<script>" not in sent(smu)["emailBody"]
    assert "&lt;script&gt;" in sent(smu)["emailBody"]


@pytest.mark.parametrize("message", [*messages.SMS, *messages.EMAILS])
def test_a_message_with_gaps_is_sent_all_the_same(users: UserApp, smu: Stubs, message: str) -> None:
    assert notify(users, users.new_user(), message, event_name=None).status_code == 200
    assert len(smu.calls) == 1


def test_a_field_is_text_whatever_is_in_it(users: UserApp, smu: Stubs) -> None:
    notify(users, users.new_user(), "transfer_completed", event_name="{0} {amount.__class__} %s", amount=1)
    assert "{0} {amount.__class__} %s" in sent(smu)["message"]


@pytest.mark.parametrize("message", ["unheard_of", "", "subject"])
def test_an_unknown_message_is_a_validation_error(users: UserApp, smu: Stubs, message: str) -> None:
    assert refusal(notify(users, users.new_user(), message)) == "VALIDATION_ERROR"
    assert len(smu.calls) == 0


@pytest.mark.parametrize("fields", [{"event_name": {}}, {"event_name": []}, [], None, "x"], ids=str)
def test_fields_that_are_no_texts_are_a_validation_error(users: UserApp, fields: Any) -> None:
    body = {"user_id": users.new_user(), "message": "transfer_completed", "fields": fields}
    assert refusal(users.call("POST", "/notifications", body)) == "VALIDATION_ERROR"


def test_an_unknown_user_is_404(users: UserApp, smu: Stubs) -> None:
    assert refusal(notify(users, uuid4(), "transfer_completed")) == "USER_NOT_FOUND"


@pytest.mark.parametrize("answer", [{"status": 500}, {"json": {"status": "failed"}}, {"json": {}}, {"status": 400}])
@pytest.mark.parametrize("message", ["transfer_completed", "order_refunded"])
def test_what_smu_did_not_take_is_503(users: UserApp, answer: dict[str, Any], message: str) -> None:
    with Stubs() as stub:
        stub.misbehaves("POST", f"{SMU_URL}/SendSMS", **answer)
        stub.misbehaves("POST", f"{SMU_URL}/SendEmail", **answer)
        assert notify(users, users.new_user(), message).status_code == 503
