"""The fakes are deterministic: seed and calls determine every byte, and a snapshot holds the whole state."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from requests.auth import HTTPBasicAuth

from tests.support.fake_servers import running
from tests.support.fakes_control import Fake
from tests.unit.fakes.smu_client import MOBILE, Smu, wrong

pytestmark = pytest.mark.contract
STRIPE = HTTPBasicAuth("sk_test_any", "")
Script = Callable[[Fake], None]


ANY_KEY = {"SMU_API_KEY": "", "STRIPE_SECRET_KEY": "", "STRIPE_WEBHOOK_URL": ""}


def call_smu(server: Fake) -> None:
    """Send and check codes, with a fault, a refusal, an SMS and an e-mail."""
    smu = Smu(server)
    server.add_fault("status", "/SendSMS", status=503)
    sid, code = smu.send()
    smu.check(sid, wrong(code))
    smu.check(sid, code)
    smu.post("/SendSMS", mobile=MOBILE, message="lost")
    smu.post("/SendSMS", mobile=MOBILE, message="delivered")
    smu.post("/SendEmail", emailAddress="a@example.com", emailSubject="Hi", emailBody="<b>x</b>")
    smu.post("/SendOTP", Mobile="invalid")


def call_stripe(server: Fake) -> None:
    """Create, pay, decline, replay, refuse, cancel and list payments, with a fault."""
    paid = create_intent(server, "a", confirm="true", payment_method="pm_card_visa")
    create_intent(server, "a", confirm="true", payment_method="pm_card_visa")
    create_intent(server, "b", confirm="true", payment_method="pm_card_chargeDeclined")
    server.add_fault("drop", "/v1/payment_intents", method="POST")
    with pytest.raises(requests.ConnectionError):
        create_intent(server, "c")
    waiting = create_intent(server, "c")
    create_intent(server, "d", amount="1")
    requests.post(f"{server.url}/v1/payment_intents/{waiting['id']}/cancel", auth=STRIPE, timeout=5)
    for path in ("/v1/events", f"/v1/payment_intents/{paid['id']}", f"/v1/charges/{paid['latest_charge']}"):
        requests.get(server.url + path, auth=STRIPE, timeout=5)


def create_intent(server: Fake, key: str, **params: str) -> Any:
    data = {"amount": "5000", "currency": "sgd", "metadata[user_id]": "u-1", **params}
    url, headers = f"{server.url}/v1/payment_intents", {"Idempotency-Key": key}
    return requests.post(url, data=data, headers=headers, auth=STRIPE, timeout=5).json()


SCRIPTS: dict[str, Script] = {"smu": call_smu, "stripe": call_stripe}
Twins = dict[str, tuple[Fake, Fake]]


@pytest.fixture(scope="module")
def twins() -> Iterator[Twins]:
    """Start each fake in two processes."""
    servers = [running(f"fakes.{name}", **ANY_KEY) for name in SCRIPTS for _ in range(2)]
    with ExitStack() as ended, ThreadPoolExecutor(len(servers)) as pool:
        smu, other_smu, stripe, other_stripe = pool.map(ended.enter_context, servers)
        yield {"smu": (smu, other_smu), "stripe": (stripe, other_stripe)}


def read_journal(server: Fake) -> bytes:
    return requests.get(f"{server.url}/_control/journal", timeout=5).content


def play(server: Fake, script: Script, seed: str, is_frozen: bool = True) -> bytes:
    """Reset the fake, run a script, and return the journal."""
    server.control("reset", seed=seed)
    if is_frozen:
        server.control("clock", freeze=1_800_000_000)
    script(server)
    return read_journal(server)


@pytest.mark.parametrize("name", SCRIPTS)
def test_same_seed_and_calls_give_the_same_journal_elsewhere(twins: Twins, name: str) -> None:
    one, other = twins[name]
    first = play(one, SCRIPTS[name], "7")
    assert len(json.loads(first)["calls"]) >= 7
    assert play(other, SCRIPTS[name], "7") == first
    assert play(one, SCRIPTS[name], "7") == first


@pytest.mark.parametrize("name", SCRIPTS)
def test_journal_has_no_wall_time_unless_the_clock_is_frozen(twins: Twins, name: str) -> None:
    one, other = twins[name]
    running_clocks = [play(server, SCRIPTS[name], "7", is_frozen=False) for server in (one, other)]
    assert running_clocks[0] == running_clocks[1] != play(one, SCRIPTS[name], "7")


@pytest.mark.parametrize("name", SCRIPTS)
def test_another_seed_gives_another_journal(twins: Twins, name: str) -> None:
    one, other = twins[name]
    assert play(one, SCRIPTS[name], "7") != play(other, SCRIPTS[name], "8")


@pytest.mark.parametrize("name", SCRIPTS)
def test_snapshot_continues_in_another_process(twins: Twins, name: str) -> None:
    one, other = twins[name]
    play(one, SCRIPTS[name], "7")
    other.control("reset", seed="another")
    other.control("restore", **one.read("snapshot"))
    assert other.read("snapshot") == one.read("snapshot")
    for server in (one, other):
        SCRIPTS[name](server)
    assert read_journal(one) == read_journal(other)
    assert other.read("snapshot") == one.read("snapshot")


def test_restored_payments_replay_under_their_keys(twins: Twins) -> None:
    server, _ = twins["stripe"]
    server.control("reset")
    made = create_intent(server, "k")
    snapshot = server.read("snapshot")
    server.control("reset")
    assert create_intent(server, "k")["id"] != made["id"]
    server.control("restore", **snapshot)
    assert create_intent(server, "k") == made
    (listed,) = requests.get(f"{server.url}/v1/payment_intents", auth=STRIPE, timeout=5).json()["data"]
    assert listed["id"] == made["id"]
