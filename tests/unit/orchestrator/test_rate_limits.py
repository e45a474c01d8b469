"""Limits on expensive calls, by verified user and by address."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from flask import Flask, g

from services.chassis.errors import Refused
from services.chassis.tokens import Identity
from services.contracts.enums import Role
from services.orchestrator.api import rate_limits
from services.orchestrator.api.rate_limits import ExpensiveCalls
from tests.support.concurrency import run_concurrently

pytestmark = pytest.mark.unit

app = Flask(__name__)


def call(calls: ExpensiveCalls, user_id: UUID, address: str = "192.0.2.1") -> int:
    """Make an expensive call. Returns 0, or the seconds to wait after a refusal."""
    with app.test_request_context(headers={"X-Real-IP": address}):
        g.identity = Identity(user_id, Role.CUSTOMER, "sid", 0, "token")
        try:
            calls.count()
        except Refused as refusal:
            return int(refusal.details["retry_after"])
    return 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time as a list with one number, ten seconds into a minute."""
    now = [6_000_000_010]
    monkeypatch.setattr("time.time", lambda: now[0])
    return now


def test_user_has_one_limit_from_all_addresses(clock: list[int]) -> None:
    calls, user, other = ExpensiveCalls(2, 0), uuid4(), uuid4()
    assert [call(calls, user, f"192.0.2.{n}") for n in range(4)] == [0, 0, 50, 50]
    assert call(calls, other) == 0
    clock[0] += 50
    assert call(calls, user) == 0


def test_address_has_one_limit_for_all_users(clock: list[int]) -> None:
    calls = ExpensiveCalls(0, 2)
    assert [call(calls, uuid4()) for _ in range(3)] == [0, 0, 50]
    assert call(calls, uuid4(), "192.0.2.2") == 0


def test_ipv6_addresses_of_one_network_share_the_limit(clock: list[int]) -> None:
    calls = ExpensiveCalls(0, 2)
    assert [call(calls, uuid4(), f"2001:db8::{n}") for n in range(3)] == [0, 0, 50]


def test_zero_is_no_limit(clock: list[int]) -> None:
    calls, user = ExpensiveCalls(0, 0), uuid4()
    assert {call(calls, user) for _ in range(200)} == {0}


def test_concurrent_calls_cannot_pass_the_limit(clock: list[int]) -> None:
    calls, user = ExpensiveCalls(5, 0), uuid4()
    waits = run_concurrently([lambda: call(calls, user)] * 16)
    assert sorted(waits) == [0] * 5 + [50] * 11


def test_counts_are_bounded(clock: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MOST_KEYS", 10)
    calls = ExpensiveCalls(5, 5)
    for n in range(50):
        call(calls, uuid4(), f"192.0.2.{n}")
    assert len(calls._counts) == 10
