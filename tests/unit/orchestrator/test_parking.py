"""A saga that can be neither completed nor undone: recovery parks it and logs it for an operator."""

from __future__ import annotations

import logging
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from services.orchestrator.saga.journal import Entry, Journal, Status
from services.orchestrator.saga.recovery import RETRY_SECONDS, Recovery
from services.orchestrator.saga.runner import Runner

pytestmark = pytest.mark.unit


class UnresolvableSaga:
    """A journal with one saga, and a runner that cannot resolve it."""

    def __init__(self, *, is_overdue: bool) -> None:
        self.ends: list[Status] = []
        self.left: list[float] = []
        fields: dict[str, Any] = {
            "dispute_number": 0,
            "attempt": 1,
            "caller": None,
            "given": {},
            "status": Status.RUNNING,
            "result": None,
        }
        self.entry = Entry(uuid4(), "pay", uuid4(), **fields, epoch=2, correlation_id=uuid4(), is_overdue=is_overdue)

    def adopt(self, _batch: int) -> list[Entry]:
        return [self.entry]

    def end(self, _entry: Entry, status: Status, _result: Any) -> bool:
        self.ends.append(status)
        return True

    def leave(self, _saga_id: UUID, pause_seconds: float) -> None:
        self.left.append(pause_seconds)

    def resolve(self, *_saga: Any) -> bool:
        return False

    def describe_for_operator(self, *_saga: Any) -> dict[str, str]:
        return {"price": "200.00"}

    def recover(self) -> None:
        """Run one tick of recovery."""
        Recovery(cast(Journal, self), cast(Runner, self)).tick()


@pytest.mark.claim("log/critical-level")
def test_parked_saga_is_logged_as_critical_with_the_next_command(caplog: pytest.LogCaptureFixture) -> None:
    saga = UnresolvableSaga(is_overdue=True)
    saga.recover()
    assert saga.ends == [Status.PARKED]
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert f"services.orchestrator.admin show {saga.entry.saga_id}" in line


def test_saga_in_time_is_tried_again_and_not_parked(caplog: pytest.LogCaptureFixture) -> None:
    saga = UnresolvableSaga(is_overdue=False)
    saga.recover()
    assert saga.ends == []
    assert [record for record in caplog.records if record.levelno >= logging.CRITICAL] == []
    assert saga.left == [RETRY_SECONDS], "recovery tries again after a pause"
