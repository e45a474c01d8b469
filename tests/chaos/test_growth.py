"""Growth is compared when pools have had the time to shrink."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from harness.runtime.process import Identity
from tests.chaos import growth
from tests.chaos.growth import WARM_SECONDS, Sample, await_rest, renew, slack_with

pytestmark = pytest.mark.chaos

USER = {"user-service": Identity(1, 1.0)}
CLIENTS = 8
SLACK = slack_with(CLIENTS)


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
    [threads] = await_rest(count_threads(30), lambda: next(later), SLACK)
    assert (threads.after, threads.is_leak) == (31, False)


def test_threads_that_stay_are_a_leak() -> None:
    [threads] = await_rest(count_threads(10), lambda: count_threads(100), SLACK, seconds=0)
    assert threads.is_leak


@pytest.mark.parametrize("kind", ["threads", "descriptors"])
def test_one_more_for_each_client_is_no_leak(kind: str) -> None:
    for more in range(CLIENTS + 2):
        samples = [Sample(USER, {(kind, "user-service"): number}) for number in (0, growth.SLACK[kind] + more)]
        [figure] = await_rest(samples[0], lambda later=samples[1]: later, SLACK, seconds=0)  # type: ignore[misc]
        assert figure.is_leak == (more > CLIENTS)
