"""Messages to users, by SMS and e-mail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.user import messages
from tests.support.stubs import Stubs
from tests.unit.user.user_app import SMU_URL, UserApp, error_code

pytestmark = pytest.mark.unit


@pytest.fixture
def smu() -> Iterator[Stubs]:
    with Stubs() as stub:
        stub.respond("POST", f"{SMU_URL}/SendSMS", json={"status": "queued"})
        stub.respond("POST", f"{SMU_URL}/SendEmail", json={"status": "sent"})
        yield stub


def notify(users: UserApp, user: UUID, message: str, **fields: Any) -> Any:
    """Send a batch of one notice and return whether it was sent."""
    (is_sent,) = users.post("/notifications", notices=[{"user_id": user, "message": message, "fields": fields}])["sent"]
    return is_sent


def last_message(smu: Stubs) -> Any:
    return json.loads(smu.calls[-1].request.body or "")


@pytest.mark.claim("smu/send-sms")
def test_sms_goes_to_the_users_phone(users: UserApp, smu: Stubs) -> None:
    user = users.new_user()
    fields = {"transfer_id": "t-1", "event_name": "Night of 100 Seats", "credits_amount": Decimal("80.00")}
    assert notify(users, user, "transfer_initiated", **fields)
    assert last_message(smu)["mobile"] == users.account(user)["phone"]
    for text in ("Night of 100 Seats", "80.00", "t-1"):
        assert text in last_message(smu)["message"]


@pytest.mark.claim("smu/send-email")
def test_email_goes_to_the_users_address(users: UserApp, smu: Stubs) -> None:
    user = users.new_user()
    notify(users, user, "booking_confirmed", order_id="o-1", event_name="Night", credits_charged=Decimal("350.00"))
    assert last_message(smu)["emailAddress"] == users.account(user)["email"]
    assert last_message(smu)["emailSubject"] == "Your TicketRemaster booking"
    assert "350.00" in last_message(smu)["emailBody"]


def test_fields_of_an_email_are_escaped(users: UserApp, smu: Stubs) -> None:
    notify(users, users.new_user(), "booking_confirmed", event_name="<script>x</script>")
    assert "<script>" not in last_message(smu)["emailBody"]
    assert "&lt;script&gt;" in last_message(smu)["emailBody"]


@pytest.mark.parametrize("message", [*messages.SMS, *messages.EMAILS])
def test_message_with_missing_fields_is_sent(users: UserApp, smu: Stubs, message: str) -> None:
    assert notify(users, users.new_user(), message, event_name=None)
    assert len(smu.calls) == 1


def test_field_is_never_formatted_again(users: UserApp, smu: Stubs) -> None:
    notify(users, users.new_user(), "transfer_completed", event_name="{0} {amount.__class__} %s", amount=1)
    assert "{0} {amount.__class__} %s" in last_message(smu)["message"]


@pytest.mark.parametrize("message", ["unheard_of", "", "subject"])
def test_unknown_message_is_not_sent(users: UserApp, smu: Stubs, message: str) -> None:
    assert not notify(users, users.new_user(), message)
    assert len(smu.calls) == 0


@pytest.mark.parametrize("fields", [{"event_name": {}}, {"event_name": []}, [], None, "x"], ids=str)
def test_invalid_fields_are_a_validation_error(users: UserApp, fields: Any) -> None:
    notice = {"user_id": users.new_user(), "message": "transfer_completed", "fields": fields}
    assert error_code(users.call("POST", "/notifications", {"notices": [notice]})) == "VALIDATION_ERROR"


@pytest.mark.parametrize("number", [0, 65])
def test_batch_has_1_to_64_notices(users: UserApp, number: int) -> None:
    notices = [{"user_id": uuid4(), "message": "transfer_completed"}] * number
    assert error_code(users.call("POST", "/notifications", {"notices": notices})) == "VALIDATION_ERROR"


def test_failed_notice_does_not_stop_the_others(users: UserApp, smu: Stubs) -> None:
    to = [users.new_user(), uuid4(), users.new_user()]
    notices = [{"user_id": user, "message": "transfer_completed"} for user in to]
    assert users.post("/notifications", notices=notices)["sent"] == [True, False, True]


def test_notices_of_a_batch_carry_their_own_correlation_ids(users: UserApp, smu: Stubs) -> None:
    ids = {str(uuid4()), str(uuid4())}
    notices = [{"user_id": users.new_user(), "message": "transfer_completed", "correlation_id": id_} for id_ in ids]
    users.post("/notifications", notices=notices)
    assert {call.request.headers["X-Correlation-ID"] for call in smu.calls} == ids


@pytest.mark.parametrize("answer", [{"status": 500}, {"json": {"status": "failed"}}, {"json": {}}, {"status": 400}])
@pytest.mark.parametrize("message", ["transfer_completed", "order_refunded"])
def test_message_that_smu_refused_is_not_sent(users: UserApp, answer: dict[str, Any], message: str) -> None:
    with Stubs() as stub:
        stub.respond_wrongly("POST", f"{SMU_URL}/SendSMS", **answer)
        stub.respond_wrongly("POST", f"{SMU_URL}/SendEmail", **answer)
        assert not notify(users, users.new_user(), message)
