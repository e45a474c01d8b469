"""The control plane of the fakes, tested with the fake SMU: faults, journal and snapshots."""

import time
from typing import Any

import pytest
import requests

from tests.support.waiting import wait_until
from tests.unit.fakes.smu_client import KEY, MOBILE, Smu

pytestmark = pytest.mark.unit


# Faults


def test_reset_is_a_tcp_reset_without_an_effect(smu: Smu) -> None:
    smu.server.add_fault("reset", "/SendOTP")
    with pytest.raises(requests.ConnectionError, match="Connection reset by peer"):
        smu.post("/SendOTP", Mobile=MOBILE)
    assert smu.inbox() == []
    assert smu.server.journal()[0]["fault"] == "reset"
    assert smu.server.journal()[0]["status"] is None


def test_drop_has_the_effect_but_no_answer(smu: Smu) -> None:
    smu.server.add_fault("drop", "/SendOTP")
    with pytest.raises(requests.ConnectionError, match="Connection reset by peer"):
        smu.post("/SendOTP", Mobile=MOBILE)
    assert len(smu.inbox(mobile=MOBILE)) == 1


def test_truncate_cuts_the_answer_short(smu: Smu) -> None:
    smu.server.add_fault("truncate", "/SendOTP")
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        smu.post("/SendOTP", Mobile=MOBILE)
    assert len(smu.inbox(mobile=MOBILE)) == 1


def test_refuse_closes_the_port_for_a_while(smu: Smu) -> None:
    smu.server.add_fault("refuse", "/SendOTP", ms=300)
    began = time.monotonic()
    with pytest.raises(requests.ConnectionError):
        smu.post("/SendOTP", Mobile=MOBILE)
    refusals = 0
    while time.monotonic() < began + 5:
        try:
            assert smu.inbox() == []
            break
        except requests.ConnectionError as error:
            refusals += "refused" in str(error)
            time.sleep(0.02)  # before the next try
    assert refusals > 0
    assert 0.25 < time.monotonic() - began < 5


def test_hang_waits_before_the_effect(smu: Smu) -> None:
    smu.server.add_fault("hang", "/SendOTP", ms=60_000)
    with pytest.raises(requests.ReadTimeout):
        smu.post("/SendOTP", Mobile=MOBILE, timeout=0.1)
    assert smu.inbox() == []
    smu.server.clear("faults")  # the hanging call continues, after its caller gave up
    wait_until(lambda: len(smu.inbox()) == 1)


def test_hang_without_effect_ends_in_a_reset(smu: Smu) -> None:
    smu.server.add_fault("hang", "/SendOTP", ms=50, effect=False)
    with pytest.raises(requests.ConnectionError):
        smu.post("/SendOTP", Mobile=MOBILE)
    assert smu.inbox() == []


def test_late_answers_after_the_effect(smu: Smu) -> None:
    smu.server.add_fault("late", "/SendOTP", ms=60_000)
    with pytest.raises(requests.ReadTimeout):
        smu.post("/SendOTP", Mobile=MOBILE, timeout=0.2)
    wait_until(lambda: len(smu.inbox()) == 1)  # a busy fake can receive the call after its timeout
    smu.server.clear("faults")


@pytest.mark.parametrize(("effect", "sent"), [(False, 0), (True, 1)])
def test_status_returns_its_status_and_body(smu: Smu, effect: bool, sent: int) -> None:
    smu.server.add_fault("status", "/SendOTP", status=503, body={"no": 1}, effect=effect)
    answer = smu.post("/SendOTP", Mobile=MOBILE)
    assert (answer.status_code, answer.json()) == (503, {"no": 1})
    assert len(smu.inbox()) == sent


def test_fault_hits_count_calls_from_the_nth(smu: Smu) -> None:
    smu.server.add_fault("status", "/Send*", method="POST", nth=2, count=2)
    seen = [smu.post("/SendOTP", Mobile=MOBILE).status_code for _ in range(4)]
    assert seen == [200, 503, 503, 200]
    (fault,) = smu.server.read("faults")["faults"]
    assert (fault["seen"], fault["fired"]) == (4, 2)


def test_fault_hits_calls_with_given_fields(smu: Smu) -> None:
    smu.server.add_fault("status", where={"Mobile": MOBILE}, count=0)
    assert smu.post("/SendOTP", Mobile="+6598765432").status_code == 200
    assert smu.post("/SendOTP", Mobile=MOBILE).status_code == 503


@pytest.mark.parametrize(
    "fault",
    [{}, {"kind": "explode"}, {"kind": "reset", "often": 2}, {"kind": "reset", "nth": 0}, {"kind": "hang", "ms": "1"}],
)
def test_malformed_fault_is_refused(smu: Smu, fault: dict[str, Any]) -> None:
    assert smu.server.get_refusal("faults", **fault)


# State


def test_journal_hides_codes_numbers_and_keys(smu: Smu) -> None:
    sid, code = smu.send()
    smu.check(sid, code)
    text = requests.get(f"{smu.server.url}/_control/journal", timeout=5).text
    assert code not in text
    assert MOBILE not in text
    assert KEY not in text


def test_invalid_snapshot_changes_nothing(smu: Smu) -> None:
    sid, code = smu.send()
    smu.server.get_refusal("restore", service="fake-smu", store={})
    assert smu.check(sid, code)["Status"] == "approved"


def test_frozen_clock_dates_the_journal(smu: Smu) -> None:
    smu.server.control("clock", freeze=1_800_000_000)
    smu.send()
    assert smu.server.journal()[0]["at"] == "2027-01-15T08:00:00.000Z"
