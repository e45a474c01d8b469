"""The fake SMU notification API over HTTP: its contract and the rules of its codes."""

import pytest
import requests

from tests.unit.fakes.smu_client import KEY, MOBILE, Smu, wrong

pytestmark = pytest.mark.unit

BASE_PATH = "/SMULab_Notification/rest/Notification"


# The contract


def test_send_otp_returns_a_sid_and_no_code(smu: Smu) -> None:
    answer = smu.post("/SendOTP", Mobile=MOBILE).json()
    assert answer.keys() == {"VerificationSid", "Success", "ErrorMessage"}
    assert answer["Success"] is True
    assert answer["ErrorMessage"] == ""
    assert answer["VerificationSid"].startswith("VE")
    assert len(answer["VerificationSid"]) == 34


@pytest.mark.parametrize("mobile", ["", "91234567", "+0123456789", "+65 9123 4567", "+65"])
def test_number_that_is_not_e164_gets_no_code(smu: Smu, mobile: str) -> None:
    answer = smu.post("/SendOTP", Mobile=mobile)
    assert answer.status_code == 200
    assert answer.json()["Success"] is False
    assert answer.json()["VerificationSid"] == ""
    assert answer.json()["ErrorMessage"]
    assert smu.inbox() == []


def test_inbox_lists_sms_and_email_newest_first(smu: Smu) -> None:
    assert smu.post("/SendSMS", mobile=MOBILE, message="one").json() == {"status": "queued"}
    assert smu.post("/SendSMS", mobile=MOBILE, message="two").json() == {"status": "queued"}
    sent = smu.post("/SendEmail", emailAddress="a@example.com", emailSubject="Hi", emailBody="<b>x</b>")
    assert sent.json() == {"status": "sent"}
    assert [m["text"] for m in smu.inbox(mobile=MOBILE)] == ["two", "one"]
    (email,) = smu.inbox(email="a@example.com")
    assert (email["subject"], email["html"]) == ("Hi", "<b>x</b>")
    assert [m["kind"] for m in smu.inbox()] == ["email", "sms", "sms"]


def test_inbox_accepts_an_unescaped_plus(smu: Smu) -> None:
    smu.send()
    answer = requests.get(f"{smu.server.url}/inbox?mobile={MOBILE}", timeout=5)
    assert len(answer.json()["messages"]) == 1


@pytest.mark.parametrize(
    "written", ["98765432", "+65 9876 5432", " 65 9876 5432", "+6598765432", "6598765432", "9876-5432", "65 9876 5432"]
)
def test_inbox_finds_a_number_as_people_write_it(smu: Smu, written: str) -> None:
    for mobile in ("+6598765432", "+6591112222", "+16598765433"):
        smu.post("/SendSMS", mobile=mobile, message=f"to {mobile}")
    smu.post("/SendEmail", emailAddress="98765432@example.com", emailSubject="Hi", emailBody="x")
    assert [message["to"] for message in smu.inbox(mobile=written)] == ["+6598765432"]


@pytest.mark.parametrize("written", ["+98765432", "nobody", "+"])
def test_inbox_does_not_find_another_number(smu: Smu, written: str) -> None:
    smu.post("/SendSMS", mobile="+6598765432", message="one")
    assert smu.inbox(mobile=written) == []


def test_inbox_page_does_not_reload_itself(smu: Smu) -> None:
    page = requests.get(f"{smu.server.url}/", headers={"Accept": "text/html"}, timeout=5)
    assert "http-equiv" not in page.text
    assert "script-src 'self';" in page.headers["Content-Security-Policy"]
    for file in ("inbox.js", "inbox.css", "icon.svg"):
        assert requests.get(f"{smu.server.url}/inbox/files/{file}", timeout=5).status_code == 200


def test_inbox_page_shows_the_code_and_escapes_messages(smu: Smu) -> None:
    _, code = smu.send()
    smu.post("/SendSMS", mobile=MOBILE, message="<script>alert(1)</script>")
    page = requests.get(f"{smu.server.url}/", headers={"Accept": "text/html"}, timeout=5)
    assert page.headers["Content-Type"].startswith("text/html")
    assert code in page.text
    assert "<script>" not in page.text


def test_public_base_path_works(smu: Smu) -> None:
    assert smu.post(f"{BASE_PATH}/SendOTP", Mobile=MOBILE).json()["Success"] is True
    assert smu.server.journal()[0]["path"] == "/SendOTP"


@pytest.mark.parametrize("headers", [{}, {"X-Contacts-Key": "another"}])
@pytest.mark.parametrize("path", ["/SendOTP", "/VerifyOTP", "/SendSMS", "/SendEmail"])
def test_wrong_key_sends_nothing(smu: Smu, path: str, headers: dict[str, str]) -> None:
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
def test_invalid_call_is_refused(smu: Smu, body: str, content_type: str, status: int) -> None:
    headers = {"X-Contacts-Key": KEY, "Content-Type": content_type}
    answer = requests.post(f"{smu.server.url}/SendOTP", data=body, headers=headers, timeout=5)
    assert answer.status_code == status
    assert answer.json()["Errors"]


# The rules of a code


def test_right_code_is_approved_once(smu: Smu) -> None:
    sid, code = smu.send()
    assert len(code) == 6
    assert smu.check(sid, code) == {"Success": True, "Status": "approved", "ErrorMessage": ""}
    again = smu.check(sid, code)
    assert again["Success"] is False
    assert "20404" in again["ErrorMessage"]


def test_wrong_code_is_pending_and_the_right_one_stays_valid(smu: Smu) -> None:
    sid, code = smu.send()
    assert smu.check(sid, wrong(code)) == {"Success": True, "Status": "pending", "ErrorMessage": ""}
    assert smu.check(sid, code)["Status"] == "approved"


def test_right_code_after_five_checks_is_refused(smu: Smu) -> None:
    sid, code = smu.send()
    assert [smu.check(sid, wrong(code))["Status"] for _ in range(5)] == ["pending"] * 5
    last = smu.check(sid, code)
    assert last["Success"] is False
    assert "60202" in last["ErrorMessage"]


def test_fifth_check_can_approve(smu: Smu) -> None:
    sid, code = smu.send()
    for _ in range(4):
        smu.check(sid, wrong(code))
    assert smu.check(sid, code)["Status"] == "approved"


@pytest.mark.parametrize(("age", "status"), [(599, "approved"), (600, "expired")])
def test_code_expires_after_ten_minutes(smu: Smu, age: int, status: str) -> None:
    smu.server.control("clock", freeze=True)
    sid, code = smu.send()
    smu.server.control("clock", advance=age)
    assert smu.check(sid, code) == {"Success": True, "Status": status, "ErrorMessage": ""}


def test_unknown_sid_is_not_found(smu: Smu) -> None:
    answer = smu.check("VE" + "0" * 32, "123456")
    assert (answer["Success"], answer["Status"]) == (False, "")
    assert "20404" in answer["ErrorMessage"]


def test_each_send_has_its_own_code(smu: Smu) -> None:
    (first, code), (second, _) = smu.send(), smu.send()
    assert first != second
    assert smu.check(first, code)["Status"] == "approved"
