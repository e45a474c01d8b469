"""The fake SMU Notification API over the wire: its contract and the rules of its codes."""

from collections.abc import Iterator

import pytest
import requests

from tests.support.fake_servers import running
from tests.support.fakes_control import Fake
from tests.unit.fakes.smu_client import KEY, MOBILE, Smu, wrong

pytestmark = pytest.mark.unit

BASE_PATH = "/SMULab_Notification/rest/Notification"


@pytest.fixture(scope="module")
def server() -> Iterator[Fake]:
    with running("fakes.smu", SMU_API_KEY=KEY) as started:
        yield started


@pytest.fixture
def smu(server: Fake) -> Smu:
    server.control("reset")
    return Smu(server)


# What the API promises


def test_send_otp_answers_with_a_sid_and_no_code(smu: Smu) -> None:
    answer = smu.post("/SendOTP", Mobile=MOBILE).json()
    assert answer.keys() == {"VerificationSid", "Success", "ErrorMessage"}
    assert answer["Success"] is True
    assert answer["ErrorMessage"] == ""
    assert answer["VerificationSid"].startswith("VE")
    assert len(answer["VerificationSid"]) == 34


@pytest.mark.parametrize("mobile", ["", "91234567", "+0123456789", "+65 9123 4567", "+65"])
def test_a_number_that_is_not_e164_gets_no_code(smu: Smu, mobile: str) -> None:
    answer = smu.post("/SendOTP", Mobile=mobile)
    assert answer.status_code == 200
    assert answer.json()["Success"] is False
    assert answer.json()["VerificationSid"] == ""
    assert answer.json()["ErrorMessage"]
    assert smu.inbox() == []


def test_sms_and_email_land_in_the_inbox_newest_first(smu: Smu) -> None:
    assert smu.post("/SendSMS", mobile=MOBILE, message="one").json() == {"status": "queued"}
    assert smu.post("/SendSMS", mobile=MOBILE, message="two").json() == {"status": "queued"}
    sent = smu.post("/SendEmail", emailAddress="a@example.com", emailSubject="Hi", emailBody="<b>x</b>")
    assert sent.json() == {"status": "sent"}
    assert [m["text"] for m in smu.inbox(mobile=MOBILE)] == ["two", "one"]
    (email,) = smu.inbox(email="a@example.com")
    assert (email["subject"], email["html"]) == ("Hi", "<b>x</b>")
    assert [m["kind"] for m in smu.inbox()] == ["email", "sms", "sms"]


def test_inbox_understands_a_plus_that_was_not_escaped(smu: Smu) -> None:
    smu.send()
    answer = requests.get(f"{smu.server.url}/inbox?mobile={MOBILE}", timeout=5)
    assert len(answer.json()["messages"]) == 1


def test_inbox_page_shows_the_code_and_escapes_what_was_sent(smu: Smu) -> None:
    _, code = smu.send()
    smu.post("/SendSMS", mobile=MOBILE, message="<script>alert(1)</script>")
    page = requests.get(f"{smu.server.url}/", headers={"Accept": "text/html"}, timeout=5)
    assert page.headers["Content-Type"].startswith("text/html")
    assert code in page.text
    assert "<script>" not in page.text


def test_the_public_base_path_works_too(smu: Smu) -> None:
    assert smu.post(f"{BASE_PATH}/SendOTP", Mobile=MOBILE).json()["Success"] is True
    assert smu.server.journal()[0]["path"] == "/SendOTP"


@pytest.mark.parametrize("headers", [{}, {"X-Contacts-Key": "another"}])
@pytest.mark.parametrize("path", ["/SendOTP", "/VerifyOTP", "/SendSMS", "/SendEmail"])
def test_without_the_right_key_nothing_is_sent(smu: Smu, path: str, headers: dict[str, str]) -> None:
    answer = requests.post(smu.server.url + path, json={"Mobile": MOBILE}, headers=headers, timeout=5)
    assert answer.status_code == 401
    assert answer.json()["StatusCode"] == 401
    assert smu.inbox() == []


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ('{"Mobile": "+6591234567"}', "text/plain", 415),
        ("{", "application/json", 400),
        ("[]", "application/json", 400),
        ('{"mobile": "+6591234567"}', "application/json", 400),
        ('{"Mobile": 6591234567}', "application/json", 400),
        ('{"Mobile": "\\ud800"}', "application/json", 400),
    ],
)
def test_a_call_that_breaks_the_contract_is_refused(smu: Smu, body: str, content_type: str, status: int) -> None:
    headers = {"X-Contacts-Key": KEY, "Content-Type": content_type}
    answer = requests.post(f"{smu.server.url}/SendOTP", data=body, headers=headers, timeout=5)
    assert answer.status_code == status
    assert answer.json()["Errors"]


# The rules of a code


def test_the_right_code_is_approved_once(smu: Smu) -> None:
    sid, code = smu.send()
    assert len(code) == 6
    assert smu.check(sid, code) == {"Success": True, "Status": "approved", "ErrorMessage": ""}
    again = smu.check(sid, code)
    assert again["Success"] is False
    assert "20404" in again["ErrorMessage"]


def test_a_wrong_code_is_pending_and_leaves_the_right_one_good(smu: Smu) -> None:
    sid, code = smu.send()
    assert smu.check(sid, wrong(code)) == {"Success": True, "Status": "pending", "ErrorMessage": ""}
    assert smu.check(sid, code)["Status"] == "approved"


def test_after_five_wrong_checks_the_right_code_is_refused(smu: Smu) -> None:
    sid, code = smu.send()
    assert [smu.check(sid, wrong(code))["Status"] for _ in range(5)] == ["pending"] * 5
    last = smu.check(sid, code)
    assert last["Success"] is False
    assert "60202" in last["ErrorMessage"]


def test_the_fifth_check_still_counts(smu: Smu) -> None:
    sid, code = smu.send()
    for _ in range(4):
        smu.check(sid, wrong(code))
    assert smu.check(sid, code)["Status"] == "approved"


@pytest.mark.parametrize(("age", "status"), [(599, "approved"), (600, "expired")])
def test_a_code_lives_ten_minutes(smu: Smu, age: int, status: str) -> None:
    smu.server.control("clock", freeze=True)
    sid, code = smu.send()
    smu.server.control("clock", advance=age)
    assert smu.check(sid, code) == {"Success": True, "Status": status, "ErrorMessage": ""}


def test_an_unknown_sid_is_not_found(smu: Smu) -> None:
    answer = smu.check("VE" + "0" * 32, "123456")
    assert (answer["Success"], answer["Status"]) == (False, "")
    assert "20404" in answer["ErrorMessage"]


def test_each_sending_has_its_own_code(smu: Smu) -> None:
    (first, code), (second, _) = smu.send(), smu.send()
    assert first != second
    assert smu.check(first, code)["Status"] == "approved"
