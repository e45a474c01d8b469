"""The fake SMU Notification API over the wire: its contract, the rules of its codes, every kind of fault."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.unit.fake_servers import FakeServer, await_, running

pytestmark = pytest.mark.unit

KEY = "the-smu-key"
MOBILE = "+6591234567"
BASE_PATH = "/SMULab_Notification/rest/Notification"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with running("fakes.smu", SMU_API_KEY=KEY) as started:
        yield started


class Smu:
    def __init__(self, server: FakeServer) -> None:
        self.server = server

    def post(self, path: str, timeout: float = 5, **body: Any) -> requests.Response:
        headers = {"X-Contacts-Key": KEY}
        return requests.post(self.server.url + path, json=body, headers=headers, timeout=timeout)

    def send(self, mobile: str = MOBILE) -> tuple[str, str]:
        """A verification's sid and the code that went out for it."""
        sid = self.post("/SendOTP", Mobile=mobile).json()["VerificationSid"]
        return sid, self.inbox(mobile=mobile)[0]["code"]

    def check(self, sid: str, code: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.post("/VerifyOTP", VerificationSid=sid, Code=code).json()
        return answer

    def inbox(self, **query: str) -> list[dict[str, Any]]:
        answer = requests.get(f"{self.server.url}/inbox", params=query, timeout=5)
        messages: list[dict[str, Any]] = answer.json()["messages"]
        return messages


@pytest.fixture
def smu(server: FakeServer) -> Smu:
    server.control("reset")
    return Smu(server)


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06d}"


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


# Faults


def test_reset_is_a_tcp_reset_and_nothing_happens(smu: Smu) -> None:
    smu.server.fault("reset", "/SendOTP")
    with pytest.raises(requests.ConnectionError, match="Connection reset by peer"):
        smu.post("/SendOTP", Mobile=MOBILE)
    assert smu.inbox() == []
    assert smu.server.journal()[0]["fault"] == "reset"
    assert smu.server.journal()[0]["status"] is None


def test_drop_happens_and_is_not_answered(smu: Smu) -> None:
    smu.server.fault("drop", "/SendOTP")
    with pytest.raises(requests.ConnectionError, match="Connection reset by peer"):
        smu.post("/SendOTP", Mobile=MOBILE)
    assert len(smu.inbox(mobile=MOBILE)) == 1


def test_truncate_cuts_the_answer_short(smu: Smu) -> None:
    smu.server.fault("truncate", "/SendOTP")
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        smu.post("/SendOTP", Mobile=MOBILE)
    assert len(smu.inbox(mobile=MOBILE)) == 1


def test_refuse_closes_the_port_for_a_while(smu: Smu) -> None:
    smu.server.fault("refuse", "/SendOTP", ms=300)
    began = time.monotonic()
    with pytest.raises(requests.ConnectionError):
        smu.post("/SendOTP", Mobile=MOBILE)
    refused = 0
    while time.monotonic() < began + 5:
        try:
            assert smu.inbox() == []
            break
        except requests.ConnectionError as error:
            refused += "refused" in str(error)
            time.sleep(0.02)  # between two tries at the closed port
    assert refused > 0
    assert 0.25 < time.monotonic() - began < 1


def test_hang_waits_before_the_effect(smu: Smu) -> None:
    smu.server.fault("hang", "/SendOTP", ms=60_000)
    with pytest.raises(requests.ReadTimeout):
        smu.post("/SendOTP", Mobile=MOBILE, timeout=0.1)
    assert smu.inbox() == []
    smu.server.clear("faults")  # lets the hanging call go on, after its caller gave up
    await_(lambda: len(smu.inbox()) == 1)


def test_hang_without_effect_ends_in_a_reset(smu: Smu) -> None:
    smu.server.fault("hang", "/SendOTP", ms=50, effect=False)
    with pytest.raises(requests.ConnectionError):
        smu.post("/SendOTP", Mobile=MOBILE)
    assert smu.inbox() == []


def test_late_answers_after_the_effect(smu: Smu) -> None:
    smu.server.fault("late", "/SendOTP", ms=60_000)
    with pytest.raises(requests.ReadTimeout):
        smu.post("/SendOTP", Mobile=MOBILE, timeout=0.2)
    assert len(smu.inbox()) == 1
    smu.server.clear("faults")


@pytest.mark.parametrize(("effect", "sent"), [(False, 0), (True, 1)])
def test_status_answers_what_it_was_told(smu: Smu, effect: bool, sent: int) -> None:
    smu.server.fault("status", "/SendOTP", status=503, body={"no": 1}, effect=effect)
    answer = smu.post("/SendOTP", Mobile=MOBILE)
    assert (answer.status_code, answer.json()) == (503, {"no": 1})
    assert len(smu.inbox()) == sent


def test_only_the_nth_to_the_last_counted_call_is_hit(smu: Smu) -> None:
    smu.server.fault("status", "/Send*", method="POST", nth=2, count=2)
    seen = [smu.post("/SendOTP", Mobile=MOBILE).status_code for _ in range(4)]
    assert seen == [200, 503, 503, 200]
    (fault,) = smu.server.read("faults")["faults"]
    assert (fault["seen"], fault["fired"]) == (4, 2)


def test_a_fault_can_pick_its_calls_by_what_they_say(smu: Smu) -> None:
    smu.server.fault("status", where={"Mobile": MOBILE}, count=0)
    assert smu.post("/SendOTP", Mobile="+6598765432").status_code == 200
    assert smu.post("/SendOTP", Mobile=MOBILE).status_code == 503


@pytest.mark.parametrize(
    "fault",
    [{}, {"kind": "explode"}, {"kind": "reset", "often": 2}, {"kind": "reset", "nth": 0}, {"kind": "hang", "ms": "1"}],
)
def test_a_malformed_fault_is_refused(smu: Smu, fault: dict[str, Any]) -> None:
    assert smu.server.refused("faults", **fault)


# Determinism and state


def script(smu: Smu) -> bytes:
    """The journal of one fixed run."""
    smu.server.control("reset", seed="7")
    smu.server.fault("reset", "/SendOTP", nth=2)
    sid, code = smu.send()
    with pytest.raises(requests.ConnectionError):
        smu.post("/SendOTP", Mobile=MOBILE)
    smu.check(sid, wrong(code))
    smu.check(sid, code)
    return requests.get(f"{smu.server.url}/_control/journal", timeout=5).content


def test_the_same_seed_and_calls_give_the_same_journal(smu: Smu) -> None:
    first, second = script(smu), script(smu)
    assert first == second
    assert first.count(b'"n":') == 4


def test_another_seed_gives_other_ids(smu: Smu) -> None:
    smu.server.control("reset", seed="7")
    first = smu.send()
    smu.server.control("reset", seed="8")
    assert smu.send() != first


def test_the_journal_hides_codes_and_numbers(smu: Smu) -> None:
    sid, code = smu.send()
    smu.check(sid, code)
    text = requests.get(f"{smu.server.url}/_control/journal", timeout=5).text
    assert code not in text
    assert MOBILE not in text
    assert KEY not in text


def test_a_restored_snapshot_is_the_same_state_again(smu: Smu) -> None:
    sid, code = smu.send()
    taken = smu.server.read("snapshot")
    assert smu.check(sid, code)["Status"] == "approved"
    after = smu.send()
    smu.server.control("restore", **taken)
    assert len(smu.inbox()) == 1
    assert smu.check(sid, code)["Status"] == "approved"
    assert smu.send() == after


def test_what_is_not_a_snapshot_changes_nothing(smu: Smu) -> None:
    sid, code = smu.send()
    smu.server.refused("restore", service="fake-smu", store={})
    assert smu.check(sid, code)["Status"] == "approved"


def test_a_frozen_clock_dates_the_journal(smu: Smu) -> None:
    smu.server.control("clock", freeze=1_800_000_000)
    smu.send()
    assert smu.server.journal()[0]["at"] == "2027-01-15T08:00:00.000Z"
