"""The fakes can be replayed: seed and calls decide every byte, and a snapshot is the whole state, in any process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from requests.auth import HTTPBasicAuth

from tests.support.fake_servers import FakeServer, running
from tests.unit.fakes.smu_client import MOBILE, Smu, wrong

pytestmark = pytest.mark.contract
STRIPE = HTTPBasicAuth("sk_test_any", "")
Script = Callable[[FakeServer], None]


EVERYBODY = {"SMU_API_KEY": "", "STRIPE_SECRET_KEY": "", "STRIPE_WEBHOOK_URL": ""}


def smu_calls(server: FakeServer) -> None:
    """Codes sent and judged, a fault, a refusal, a text, a letter."""
    smu = Smu(server)
    server.fault("status", "/SendSMS", status=503)
    sid, code = smu.send()
    smu.check(sid, wrong(code))
    smu.check(sid, code)
    smu.post("/SendSMS", mobile=MOBILE, message="lost")
    smu.post("/SendSMS", mobile=MOBILE, message="told")
    smu.post("/SendEmail", emailAddress="a@example.com", emailSubject="Hi", emailBody="<b>x</b>")
    smu.post("/SendOTP", Mobile="nobody")


def stripe_calls(server: FakeServer) -> None:
    """Payments made, paid, declined, replayed, refused, cancelled, listed; a fault."""
    paid = intent(server, "a", confirm="true", payment_method="pm_card_visa")
    intent(server, "a", confirm="true", payment_method="pm_card_visa")
    intent(server, "b", confirm="true", payment_method="pm_card_chargeDeclined")
    server.fault("drop", "/v1/payment_intents", method="POST")
    with pytest.raises(requests.ConnectionError):
        intent(server, "c")
    waiting = intent(server, "c")
    intent(server, "d", amount="1")
    requests.post(f"{server.url}/v1/payment_intents/{waiting['id']}/cancel", auth=STRIPE, timeout=5)
    for path in ("/v1/events", f"/v1/payment_intents/{paid['id']}", f"/v1/charges/{paid['latest_charge']}"):
        requests.get(server.url + path, auth=STRIPE, timeout=5)


def intent(server: FakeServer, key: str, **params: str) -> Any:
    data = {"amount": "5000", "currency": "sgd", "metadata[user_id]": "u-1", **params}
    url, headers = f"{server.url}/v1/payment_intents", {"Idempotency-Key": key}
    return requests.post(url, data=data, headers=headers, auth=STRIPE, timeout=5).json()


SCRIPTS: dict[str, Script] = {"smu": smu_calls, "stripe": stripe_calls}
Twins = dict[str, tuple[FakeServer, FakeServer]]


@pytest.fixture(scope="module")
def twins() -> Iterator[Twins]:
    """Each fake in two processes, started side by side."""
    twice = [running(f"fakes.{name}", **EVERYBODY) for name in SCRIPTS for _ in range(2)]
    with ExitStack() as ended, ThreadPoolExecutor(len(twice)) as starting:
        smu, other_smu, stripe, other_stripe = starting.map(ended.enter_context, twice)
        yield {"smu": (smu, other_smu), "stripe": (stripe, other_stripe)}


def journal(server: FakeServer) -> bytes:
    return requests.get(f"{server.url}/_control/journal", timeout=5).content


def played(server: FakeServer, script: Script, seed: str, frozen: bool = True) -> bytes:
    """The journal of one run from the start."""
    server.control("reset", seed=seed)
    if frozen:
        server.control("clock", freeze=1_800_000_000)
    script(server)
    return journal(server)


@pytest.mark.parametrize("name", SCRIPTS)
def test_same_seed_and_calls_give_the_same_journal_in_another_process(twins: Twins, name: str) -> None:
    one, other = twins[name]
    first = played(one, SCRIPTS[name], "7")
    assert len(json.loads(first)["calls"]) >= 7
    assert played(other, SCRIPTS[name], "7") == first
    assert played(one, SCRIPTS[name], "7") == first


@pytest.mark.parametrize("name", SCRIPTS)
def test_journal_has_no_wall_time_unless_the_clock_stands(twins: Twins, name: str) -> None:
    one, other = twins[name]
    running_clocks = [played(server, SCRIPTS[name], "7", frozen=False) for server in (one, other)]
    assert running_clocks[0] == running_clocks[1] != played(one, SCRIPTS[name], "7")


@pytest.mark.parametrize("name", SCRIPTS)
def test_another_seed_gives_another_journal(twins: Twins, name: str) -> None:
    one, other = twins[name]
    assert played(one, SCRIPTS[name], "7") != played(other, SCRIPTS[name], "8")


@pytest.mark.parametrize("name", SCRIPTS)
def test_snapshot_is_taken_up_by_another_process_and_goes_on_as_the_first(twins: Twins, name: str) -> None:
    one, other = twins[name]
    played(one, SCRIPTS[name], "7")
    other.control("reset", seed="of another life")
    other.control("restore", **one.read("snapshot"))
    assert other.read("snapshot") == one.read("snapshot")
    for server in (one, other):
        SCRIPTS[name](server)
    assert journal(one) == journal(other)
    assert other.read("snapshot") == one.read("snapshot")


def test_restored_payments_replay_under_their_keys_and_are_there(twins: Twins) -> None:
    server, _ = twins["stripe"]
    server.control("reset")
    made = intent(server, "k")
    taken = server.read("snapshot")
    server.control("reset")
    assert intent(server, "k")["id"] != made["id"]
    server.control("restore", **taken)
    assert intent(server, "k") == made
    (listed,) = requests.get(f"{server.url}/v1/payment_intents", auth=STRIPE, timeout=5).json()["data"]
    assert listed["id"] == made["id"]
