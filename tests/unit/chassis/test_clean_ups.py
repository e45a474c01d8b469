"""Clean-ups of ended requests: they are repeated until they get an answer."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from services.chassis import clean_ups
from services.chassis.clean_ups import CleanUps
from services.chassis.errors import Refused, Unknown
from services.contracts.errors import ErrorCode
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unit


class Call:
    """A call that fails with scripted errors and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.made = 0

    def __call__(self) -> None:
        self.made += 1
        if self._errors:
            raise self._errors.pop(0)


def count_pending() -> float | None:
    return REGISTRY.get_sample_value("clean_ups_pending")


def test_call_without_an_answer_is_repeated_until_it_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean_ups, "PAUSE_SECONDS", 0.01)
    call, work = Call(*[Unknown("no answer")] * 3), CleanUps()
    work.run(call)
    assert (call.made, count_pending()) == (1, 1)
    work.start()
    wait_until(lambda: count_pending() == 0)
    work.stop()
    assert call.made == 4


def test_one_call_without_an_answer_does_not_stop_the_others() -> None:
    silent, other, work = Call(*[Unknown("no answer")] * 9), Call(Unknown("no answer")), CleanUps()
    work.run(silent)
    work.run(other)
    work.tick()
    assert (silent.made, other.made, count_pending()) == (2, 2, 1)


def test_bug_in_one_call_does_not_stop_the_others() -> None:
    broken, other, work = Call(*[KeyError("a bug")] * 9), Call(Unknown("no answer")), CleanUps()
    work.add(broken)
    work.run(other)
    work.tick()
    assert (broken.made, other.made, count_pending()) == (1, 2, 0)


def test_refused_call_is_not_repeated() -> None:
    call, work = Call(Unknown("no answer"), Refused(ErrorCode.STEP_VOIDED)), CleanUps()
    work.run(call)
    for _ in range(3):
        work.tick()
    assert (call.made, count_pending()) == (2, 0)


def test_call_that_came_too_late_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean_ups, "KEPT_SECONDS", 0.0)
    call, work = Call(*[Unknown("no answer")] * 9), CleanUps()
    work.run(call)
    for _ in range(3):
        work.tick()
    assert (call.made, count_pending()) == (2, 0)
