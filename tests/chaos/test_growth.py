"""Growth is compared when pools have had the time to shrink."""

from __future__ import annotations

import pytest

from harness.runtime.process import Identity
from tests.chaos.growth import SLACK, Sample, await_rest

pytestmark = pytest.mark.chaos

USER = {"user-service": Identity(1, 1.0)}


def count_threads(number: float) -> Sample:
    return Sample(USER, {("threads", "user-service"): number})


def test_idle_threads_that_end_are_no_leak() -> None:
    later = iter([count_threads(30 + 2 * SLACK["threads"]), count_threads(31)])
    [threads] = await_rest(count_threads(30), lambda: next(later))
    assert (threads.after, threads.is_leak) == (31, False)


def test_threads_that_stay_are_a_leak() -> None:
    [threads] = await_rest(count_threads(10), lambda: count_threads(100), seconds=0)
    assert threads.is_leak
