"""A saga that can be neither finished nor undone: who is told, and how loudly."""

from __future__ import annotations

import logging
from typing import Any, cast
from uuid import uuid4

import pytest

from services.orchestrator.saga.journal import Entry, Journal, Status
from services.orchestrator.saga.recovery import Recovery
from services.orchestrator.saga.runner import Runner

pytestmark = pytest.mark.unit


class Hopeless:
    """A journal with one overdue saga, and a runner that cannot resolve it."""

    def __init__(self, *, overdue: bool) -> None:
        self.ends: list[Status] = []
        given: dict[str, Any] = {
            "dispute_number": 0,
            "attempt": 1,
            "caller": None,
            "given": {},
            "status": Status.RUNNING,
            "result": None,
        }
        self.entry = Entry(uuid4(), "pay", uuid4(), **given, epoch=2, correlation_id=uuid4(), is_overdue=overdue)

    def adopt(self, _batch: int) -> list[Entry]:
        return [self.entry]

    def end(self, _entry: Entry, status: Status, _result: Any) -> bool:
        self.ends.append(status)
        return True

    def resolve(self, *_saga: Any) -> bool:
        return False

    def describe_for_operator(self, *_saga: Any) -> dict[str, str]:
        return {"price": "200.00"}


def looked_after(hopeless: Hopeless) -> None:
    """One look of recovery at it."""
    Recovery(cast(Journal, hopeless), cast(Runner, hopeless)).tick()


@pytest.mark.claim("log/critical-level")
def test_a_parked_saga_is_critical_and_says_how_to_look_at_it(caplog: pytest.LogCaptureFixture) -> None:
    hopeless = Hopeless(overdue=True)
    looked_after(hopeless)
    assert hopeless.ends == [Status.PARKED]
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert f"services.orchestrator.admin show {hopeless.entry.saga_id}" in line


def test_before_its_time_nobody_is_called(caplog: pytest.LogCaptureFixture) -> None:
    hopeless = Hopeless(overdue=False)
    looked_after(hopeless)
    assert hopeless.ends == []
    assert [record for record in caplog.records if record.levelno >= logging.CRITICAL] == []
