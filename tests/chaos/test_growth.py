"""Growth is compared when pools have had the time to shrink."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from harness.runtime.process import Identity
from tests.chaos import growth
from tests.chaos.growth import SLACK, WARM_SECONDS, Sample, await_rest, renew

pytestmark = pytest.mark.chaos

USER = {"user-service": Identity(1, 1.0)}


def count_threads(number: float) -> Sample:
    return Sample(USER, {("threads", "user-service"): number})


def test_restarted_process_is_compared_once_it_is_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "GATEWAY", "user-service")
    monkeypatch.setattr(growth, "measure_process", lambda name, identity: {("threads", name): 7})
    for age, number in ((WARM_SECONDS - 5, 30), (WARM_SECONDS + 5, 7)):
        restarted = Identity(2, time.time() - age)
        stack: Any = SimpleNamespace(services=(), identity=lambda name, found=restarted: found)
        renewed = renew(count_threads(30), stack)
        assert renewed.figures == {("threads", "user-service"): number}
        assert (renewed.identities["user-service"] == restarted) == (number == 7)


def test_idle_threads_that_end_are_no_leak() -> None:
    later = iter([count_threads(30 + 2 * SLACK["threads"]), count_threads(31)])
    [threads] = await_rest(count_threads(30), lambda: next(later))
    assert (threads.after, threads.is_leak) == (31, False)


def test_threads_that_stay_are_a_leak() -> None:
    [threads] = await_rest(count_threads(10), lambda: count_threads(100), seconds=0)
    assert threads.is_leak
