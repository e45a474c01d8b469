"""The control plane of the fakes, shown on the SMU one: every kind of fault, determinism, snapshots."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.fake_servers import running
from tests.support.fakes_control import Fake
from tests.support.waiting import wait_until
from tests.unit.fakes.smu_client import KEY, MOBILE, Smu, wrong

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def server() -> Iterator[Fake]:
    with running("fakes.smu", SMU_API_KEY=KEY) as started:
        yield started


@pytest.fixture
def smu(server: Fake) -> Smu:
    server.control("reset")
    return Smu(server)


# Faults


def test_reset_is_a_tcp_reset_and_nothing_happens(smu: Smu) -> None:
    smu.server.add_fault("reset", "/SendOTP")
    with pytest.raises(requests.ConnectionError, match="Connection reset by peer"):
        smu.post("/SendOTP", Mobile=MOBILE)
    assert smu.inbox() == []
    assert smu.server.journal()[0]["fault"] == "reset"
    assert smu.server.journal()[0]["status"] is None


def test_drop_happens_and_is_not_answered(smu: Smu) -> None:
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
    smu.server.add_fault("hang", "/SendOTP", ms=60_000)
    with pytest.raises(requests.ReadTimeout):
        smu.post("/SendOTP", Mobile=MOBILE, timeout=0.1)
    assert smu.inbox() == []
    smu.server.clear("faults")  # lets the hanging call go on, after its caller gave up
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
    assert len(smu.inbox()) == 1
    smu.server.clear("faults")


@pytest.mark.parametrize(("effect", "sent"), [(False, 0), (True, 1)])
def test_status_answers_what_it_was_told(smu: Smu, effect: bool, sent: int) -> None:
    smu.server.add_fault("status", "/SendOTP", status=503, body={"no": 1}, effect=effect)
    answer = smu.post("/SendOTP", Mobile=MOBILE)
    assert (answer.status_code, answer.json()) == (503, {"no": 1})
    assert len(smu.inbox()) == sent


def test_only_the_nth_to_the_last_counted_call_is_hit(smu: Smu) -> None:
    smu.server.add_fault("status", "/Send*", method="POST", nth=2, count=2)
    seen = [smu.post("/SendOTP", Mobile=MOBILE).status_code for _ in range(4)]
    assert seen == [200, 503, 503, 200]
    (fault,) = smu.server.read("faults")["faults"]
    assert (fault["seen"], fault["fired"]) == (4, 2)


def test_a_fault_can_pick_its_calls_by_what_they_say(smu: Smu) -> None:
    smu.server.add_fault("status", where={"Mobile": MOBILE}, count=0)
    assert smu.post("/SendOTP", Mobile="+6598765432").status_code == 200
    assert smu.post("/SendOTP", Mobile=MOBILE).status_code == 503


@pytest.mark.parametrize(
    "fault",
    [{}, {"kind": "explode"}, {"kind": "reset", "often": 2}, {"kind": "reset", "nth": 0}, {"kind": "hang", "ms": "1"}],
)
def test_a_malformed_fault_is_refused(smu: Smu, fault: dict[str, Any]) -> None:
    assert smu.server.get_refusal("faults", **fault)


# Determinism and state


def script(smu: Smu) -> bytes:
    """The journal of one fixed run."""
    smu.server.control("reset", seed="7")
    smu.server.add_fault("reset", "/SendOTP", nth=2)
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
    smu.server.get_refusal("restore", service="fake-smu", store={})
    assert smu.check(sid, code)["Status"] == "approved"


def test_a_frozen_clock_dates_the_journal(smu: Smu) -> None:
    smu.server.control("clock", freeze=1_800_000_000)
    smu.send()
    assert smu.server.journal()[0]["at"] == "2027-01-15T08:00:00.000Z"
