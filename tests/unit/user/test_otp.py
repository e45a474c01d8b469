"""Codes by SMS: the calls to SMU (section 9 of the reference), and the limits of codes per phone and initiator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests
from responses import matchers
from urllib3.exceptions import MaxRetryError, NewConnectionError

from services.chassis import neighbours
from services.chassis.clean_ups import CleanUps
from services.chassis.clients import CALL_SECONDS
from services.chassis.errors import Unknown
from services.user import smu as smu_module
from services.user.outside import open_session
from services.user.store.code_quota import CodeQuota
from tests.support.concurrency import run_concurrently
from tests.support.databases import Databases
from tests.support.stubs import Stubs
from tests.unit.user.user_app import SMU_KEY, SMU_URL, UserApp, error_code, status_codes

pytestmark = pytest.mark.unit


@pytest.fixture
def smu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubs]:
    """The stub of SMU. On a busy machine, several failures would otherwise take long enough to count as away."""
    monkeypatch.setattr(neighbours, "AWAY_SECONDS", 60.0)
    with Stubs() as stub:
        yield stub


def stub_send(smu: Stubs, **changes: Any) -> None:
    sent = {"VerificationSid": "VE1", "Success": True, "ErrorMessage": ""}
    smu.respond("POST", f"{SMU_URL}/SendOTP", json=sent | changes)


def stub_verify(smu: Stubs, **answer: Any) -> None:
    smu.respond("POST", f"{SMU_URL}/VerifyOTP", json=answer)


def send(users: UserApp, user: UUID) -> Any:
    return users.call("POST", "/otp/send", {"user_id": user})


def verify(users: UserApp) -> Any:
    return users.call("POST", "/otp/verify", {"verification_sid": "VE1", "otp_code": "123456"})


def connection_error() -> requests.ConnectionError:
    reason = NewConnectionError(None, "refused")  # type: ignore[arg-type]
    return requests.ConnectionError(MaxRetryError(None, "/SendOTP", reason))  # type: ignore[arg-type]


@pytest.mark.claim(
    "smu/authenticates-every-call",
    "smu/send-otp",
    "smu/generates-code",
    "protocols/user-sends-codes",
    "otp/flagged-buyer-gets-code",
    "schema/users.phone",
)
def test_send_calls_smu_as_specified(users: UserApp, smu: Stubs) -> None:
    user, correlation, session = users.new_user(), str(uuid4()), open_session(SMU_URL)
    expected = {"X-Contacts-Key": SMU_KEY, "Content-Type": "application/json", "X-Correlation-ID": correlation}
    smu.respond(
        "POST",
        f"{SMU_URL}/SendOTP",
        json={"VerificationSid": "VE1", "Success": True, "ErrorMessage": ""},
        match=[
            matchers.header_matcher(expected),
            matchers.json_params_matcher({"Mobile": users.account(user)["phone"]}),
            matchers.request_kwargs_matcher(
                {"timeout": smu_module.TIMEOUT, "verify": session.verify, "proxies": session.proxies}
            ),
        ],
    )
    headers = {"X-Correlation-ID": correlation}
    answer = users.call("POST", "/otp/send", {"user_id": user}, **headers)
    assert (answer.status_code, answer.get_json()["data"]) == (200, {"verification_sid": "VE1"})


def test_smu_timeout_is_shorter_than_the_callers() -> None:
    assert sum(smu_module.TIMEOUT) < CALL_SECONDS


def test_send_to_an_unknown_user_calls_no_smu(users: UserApp, smu: Stubs) -> None:
    assert error_code(send(users, uuid4())) == "USER_NOT_FOUND"
    assert len(smu.calls) == 0


@pytest.mark.claim("smu/failed-send")
@pytest.mark.parametrize(
    "failure",
    [
        {"status": 500}, {"status": 503, "json": {"Success": True, "VerificationSid": "VE1"}}, {"status": 401},
        {"status": 404}, {"status": 302, "headers": {"Location": "/x"}}, {"json": {"Success": False}}, {"json": {}},
        {"json": {"Success": True}}, {"json": {"Success": True, "VerificationSid": ""}}, {"json": []},
        {"json": {"Success": True, "VerificationSid": "VE\0"}},
        {"body": rb'{"Success": true, "VerificationSid": "\ud800"}'},
        {"json": {"Success": "true", "VerificationSid": "VE1"}}, {"json": {"Success": True, "VerificationSid": 7}},
        {"body": "<html>"}, {"body": requests.ReadTimeout()}, {"body": requests.ConnectTimeout()},
        {"body": requests.ConnectionError("reset")}, {"body": requests.exceptions.ChunkedEncodingError()},
        {"body": connection_error()},
    ],
    ids=str,
)  # fmt: skip
def test_unconfirmed_send_is_503(users: UserApp, smu: Stubs, failure: dict[str, Any]) -> None:
    smu.respond_wrongly("POST", f"{SMU_URL}/SendOTP", **failure)
    answer = send(users, users.new_user())
    assert (answer.status_code, error_code(answer)) == (503, "SERVICE_UNAVAILABLE")
    assert answer.headers["Retry-After"]


def test_refused_send_is_503(users: UserApp, smu: Stubs) -> None:
    stub_send(smu, VerificationSid="", Success=False, ErrorMessage="60200: Invalid parameter `To`")
    assert error_code(send(users, users.new_user())) == "SERVICE_UNAVAILABLE"


def test_sixth_code_in_ten_minutes_is_refused_with_a_wait(users: UserApp, smu: Stubs) -> None:
    stub_send(smu)
    user = users.new_user()
    assert status_codes(send(users, user) for _ in range(5)) == [200] * 5
    answer = send(users, user)
    assert (answer.status_code, error_code(answer)) == (429, "RATE_LIMITED")
    wait = answer.get_json()["details"]["retry_after"]
    assert 590 <= wait <= 600
    assert answer.headers["Retry-After"] == str(wait)
    assert len(smu.calls) == 5


def test_five_of_twelve_concurrent_sends_succeed(users: UserApp, smu: Stubs) -> None:
    stub_send(smu)
    user = users.new_user()
    assert status_codes(run_concurrently([lambda: send(users, user)] * 12)) == [200] * 5 + [429] * 7
    assert len(smu.calls) == 5


def test_limit_is_per_phone(users: UserApp, smu: Stubs) -> None:
    stub_send(smu)
    one, other = users.new_user(), users.new_user()
    with users.db.transaction() as tx:
        phone = users.account(one)["phone"]
        tx.run("UPDATE users SET phone = %(phone)s WHERE user_id = %(user)s", phone=phone, user=other)
    assert status_codes(send(users, user) for user in [one, other] * 3) == [200] * 5 + [429]


def test_limit_ends_after_ten_minutes(users: UserApp, smu: Stubs, databases: Databases) -> None:
    stub_send(smu)
    user = users.new_user()
    assert status_codes(send(users, user) for _ in range(6)) == [200] * 5 + [429]
    databases.shift_clock("user", 601)
    try:
        assert status_codes(send(users, user) for _ in range(6)) == [200] * 5 + [429]
    finally:
        databases.shift_clock("user", 0)


def test_limit_is_a_sliding_window(users: UserApp, smu: Stubs, databases: Databases) -> None:
    stub_send(smu)
    user = users.new_user()
    phone = users.account(user)["phone"]
    with closing(databases.superuser("user")) as connection, connection.cursor() as cursor:
        ages = [599, 601, 300, 100]
        cursor.execute(
            "INSERT INTO counted_events "
            "SELECT %s, array_agg(now() - make_interval(secs => age)), now() + interval '1 h' FROM unnest(%s) AS age",
            (f"code:{phone}", ages),
        )
    assert status_codes(send(users, user) for _ in range(2)) == [200] * 2
    answer = send(users, user)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) <= 2


@pytest.mark.parametrize(
    ("failure", "is_counted"),
    [
        ({"json": {"Success": False, "ErrorMessage": "x"}}, False), ({"status": 400}, False),
        ({"body": connection_error()}, False), ({"body": requests.ConnectTimeout()}, False),
        ({"status": 500}, True), ({"body": requests.ReadTimeout()}, True), ({"body": requests.ConnectionError()}, True),
    ],
    ids=str,
)  # fmt: skip
def test_only_a_code_that_may_have_been_sent_counts(
    users: UserApp, smu: Stubs, failure: dict[str, Any], is_counted: bool
) -> None:
    smu.respond_wrongly("POST", f"{SMU_URL}/SendOTP", **failure)
    user = users.new_user()
    assert status_codes(send(users, user) for _ in range(6)) == ([429] + [503] * 5 if is_counted else [503] * 6)


def send_for(users: UserApp, initiator: UUID, user: UUID) -> Any:
    return users.call("POST", "/otp/send", {"user_id": user, "initiator_id": initiator})


def test_codes_of_others_leave_the_owners_quota(users: UserApp, smu: Stubs) -> None:
    stub_send(smu)
    owner = users.new_user()
    strangers = [users.new_user() for _ in range(4)]
    assert status_codes(send_for(users, stranger, owner) for stranger in strangers * 2) == [200] * 6 + [429] * 2
    assert status_codes(send(users, owner) for _ in range(6)) == [200] * 5 + [429]


def test_three_codes_of_one_initiator_reach_a_phone(users: UserApp, smu: Stubs) -> None:
    stub_send(smu)
    stranger, owner = users.new_user(), users.new_user()
    assert status_codes(send_for(users, stranger, owner) for _ in range(5)) == [200] * 3 + [429] * 2
    assert send_for(users, users.new_user(), owner).status_code == 200


def test_ten_codes_to_others_are_the_limit_of_an_hour(users: UserApp, smu: Stubs, databases: Databases) -> None:
    stub_send(smu)
    stranger = users.new_user()
    assert status_codes(send_for(users, stranger, users.new_user()) for _ in range(12)) == [200] * 10 + [429] * 2
    assert send(users, stranger).status_code == 200, "the own quota is another one"
    databases.shift_clock("user", 3601)
    try:
        assert send_for(users, stranger, users.new_user()).status_code == 200
    finally:
        databases.shift_clock("user", 0)


def test_concurrent_codes_to_others_cannot_pass_the_limit(users: UserApp, smu: Stubs) -> None:
    stub_send(smu)
    stranger, owner = users.new_user(), users.new_user()
    answers = run_concurrently([lambda: send_for(users, stranger, owner)] * 8)
    assert status_codes(answers) == [200] * 3 + [429] * 5
    assert len(smu.calls) == 3


def test_a_code_that_was_not_sent_counts_against_nobody(users: UserApp, smu: Stubs) -> None:
    smu.respond_wrongly("POST", f"{SMU_URL}/SendOTP", status=400)
    stranger, owner = users.new_user(), users.new_user()
    assert status_codes(send_for(users, stranger, owner) for _ in range(5)) == [503] * 5


def share_phone(users: UserApp) -> tuple[UUID, UUID]:
    """Add two accounts with one number."""
    one, other = users.new_user(), users.new_user()
    with users.db.transaction() as tx:
        phone = users.account(one)["phone"]
        tx.run("UPDATE users SET phone = %(phone)s WHERE user_id = %(user)s", phone=phone, user=other)
    return one, other


def enter_code(users: UserApp, status: str, **user: UUID | None) -> None:
    body = {"verification_sid": "VE1", "otp_code": "123456", **user}
    with Stubs() as smu:
        stub_verify(smu, Success=True, Status=status, ErrorMessage="")
        assert users.call("POST", "/otp/verify", body).get_json()["data"] == {"status": status}


def test_another_account_cannot_use_up_a_verified_phone(users: UserApp, smu: Stubs) -> None:
    stub_send(smu)
    owner, impostor = share_phone(users)
    enter_code(users, "approved", user_id=owner)
    assert status_codes(send(users, impostor) for _ in range(5)) == [200] * 3 + [429] * 2
    assert status_codes(send(users, owner) for _ in range(6)) == [200] * 5 + [429]


@pytest.mark.parametrize("status", ["pending", "expired", "approved"])
def test_only_a_right_code_of_the_own_account_verifies_a_phone(users: UserApp, smu: Stubs, status: str) -> None:
    stub_send(smu)
    one, other = share_phone(users)
    enter_code(users, status, **({} if status == "approved" else {"user_id": one}))
    assert status_codes(send(users, user) for user in [one, other] * 3) == [200] * 5 + [429]


def test_a_verdict_survives_a_failed_record(users: UserApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> bool:
        raise Unknown("the database did not answer")

    monkeypatch.setattr(CodeQuota, "verify_phone", fail)
    enter_code(users, "approved", user_id=users.new_user())


def test_redirect_is_not_followed(users: UserApp, smu: Stubs) -> None:
    smu.respond_wrongly("POST", f"{SMU_URL}/SendOTP", status=302, headers={"Location": f"{SMU_URL}/elsewhere"})
    smu.respond_wrongly("GET", f"{SMU_URL}/elsewhere", json={"VerificationSid": "VE1", "Success": True})
    assert send(users, users.new_user()).status_code == 503
    assert len(smu.calls) == 1


@pytest.mark.claim("smu/authenticates-every-call", "smu/verify-otp", "otp/smu-verifies-code")
def test_verify_calls_smu_as_specified(users: UserApp, smu: Stubs) -> None:
    stub_verify(smu, Success=True, Status="approved", ErrorMessage="")
    answer = verify(users)
    assert (answer.status_code, answer.get_json()["data"]) == (200, {"status": "approved"})
    assert json.loads(smu.calls[0].request.body or "") == {"VerificationSid": "VE1", "Code": "123456"}
    assert smu.calls[0].request.headers["X-Contacts-Key"] == SMU_KEY


@pytest.mark.claim("smu/approved-code", "smu/pending-code", "smu/expired-code", "smu/valid-code")
@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        ({"Success": True, "Status": "approved", "ErrorMessage": ""}, "approved"),
        ({"Success": True, "Status": "pending", "ErrorMessage": ""}, "pending"),
        ({"Success": True, "Status": "expired", "ErrorMessage": ""}, "expired"),
        (
            {"Success": False, "Status": "", "ErrorMessage": "20404: The requested verification was not found"},
            "expired",
        ),
        ({"Success": False, "Status": "", "ErrorMessage": "60202: Max check attempts reached"}, "expired"),
    ],
)
def test_verdict_of_smu_is_returned(users: UserApp, smu: Stubs, verdict: dict[str, Any], status: str) -> None:
    stub_verify(smu, **verdict)
    assert verify(users).get_json()["data"] == {"status": status}


def test_404_of_smu_is_expired(users: UserApp, smu: Stubs) -> None:
    smu.respond_wrongly("POST", f"{SMU_URL}/VerifyOTP", status=404, json={"Errors": ["x"]})
    assert verify(users).get_json()["data"] == {"status": "expired"}


@pytest.mark.claim("smu/valid-code", "smu/failed-send")
@pytest.mark.parametrize(
    "failure",
    [
        {"status": 500}, {"status": 401}, {"json": {"Success": False, "Status": "approved"}}, {"json": {}},
        {"json": {"Success": True, "Status": "canceled"}}, {"json": {"Success": True}}, {"body": "approved"},
        {"json": {"Success": True, "Status": ["approved"]}}, {"body": requests.ReadTimeout()},
        {"json": {"Success": False, "ErrorMessage": "Twilio is down"}},
        {"status": 503, "json": {"Success": True, "Status": "approved"}},
    ],
    ids=str,
)  # fmt: skip
def test_missing_verdict_is_503(users: UserApp, smu: Stubs, failure: dict[str, Any]) -> None:
    smu.respond_wrongly("POST", f"{SMU_URL}/VerifyOTP", **failure)
    answer = verify(users)
    assert (answer.status_code, error_code(answer)) == (503, "SERVICE_UNAVAILABLE")


def test_reported_failure_of_smu_is_503(users: UserApp, smu: Stubs) -> None:
    stub_verify(smu, Success=False, Status="", ErrorMessage="20500: Twilio is down")
    assert error_code(verify(users)) == "SERVICE_UNAVAILABLE"


@pytest.mark.parametrize("body", [{}, {"verification_sid": "VE1"}, {"verification_sid": "", "otp_code": "1"},
                                  {"verification_sid": "VE1", "otp_code": ""},
                                  {"verification_sid": "VE1", "otp_code": 123456}])  # fmt: skip
def test_malformed_guess_is_a_validation_error(users: UserApp, body: dict[str, Any]) -> None:
    assert error_code(users.call("POST", "/otp/verify", body)) == "VALIDATION_ERROR"


def test_code_that_was_not_sent_is_given_back_after_an_outage(
    users: UserApp, smu: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Unknown("the database is away")

    smu.respond("POST", f"{SMU_URL}/SendOTP", json={"VerificationSid": "", "Success": False, "ErrorMessage": "no"})
    user = users.new_user()
    with monkeypatch.context() as outage:
        outage.setattr(CodeQuota, "give_back", fail)
        assert send(users, user).status_code == 503
    (clean_ups,) = [part for part in users.app.extensions["background"] if isinstance(part, CleanUps)]
    clean_ups.tick()
    counted = users.db.statement(
        "SELECT cardinality(times) AS codes FROM counted_events WHERE key = %(key)s",
        key=f"code:{users.account(user)['phone']}",
    )
    assert counted == {"codes": 0}
