"""Negative controls: the checks of the crash tests fail when a guard of the journal is missing."""

from __future__ import annotations

import time

import pytest

from tests.saga.crash import crash_batches
from tests.saga.crash.crash_batches import ArmedProcess, CrashedProcess
from tests.saga.crash.crash_points import CrashPoint
from tests.saga.crash.crash_system import CrashTestSystem

pytestmark = [pytest.mark.saga, pytest.mark.negative_control]

CHARGED = CrashPoint("pay", "answered", "deduct_credits")
ENDED = CrashPoint("pay", "ended")


def _crash(system: CrashTestSystem, crash_point: CrashPoint, **environment: str) -> CrashedProcess:
    actors = crash_batches.prepare_actors(system, crash_point)
    environment = {"IDLE": crash_batches.NO_BACKGROUND_WORK, **environment}
    with system.killable_orchestrators(environment) as (orchestrator,):
        return crash_batches.kill(ArmedProcess(crash_point, actors, orchestrator))


def test_check_fails_without_recovery(system: CrashTestSystem) -> None:
    with crash_batches.armed_processes(system, [CHARGED]) as armed, system.without_rescuer():
        (crashed,) = crash_batches.kill_all(armed)
        with system.killable_orchestrators({"IDLE": "recovery"}), pytest.raises(AssertionError, match="has ended"):
            crash_batches.verify(crashed, time.time())
    crash_batches.verify(crashed, time.time())


def test_check_fails_without_the_begin_write(system: CrashTestSystem) -> None:
    crashed = _crash(system, CHARGED, KILL_AT=CHARGED.kill_at, JOURNAL="NoBeginWrite")
    with pytest.raises(AssertionError, match="the journal has no such saga"):
        crash_batches.verify(crashed)
    assert any(line.startswith("i1_money") for line in crashed.actors.find_violations())
    crashed.actors.request_pay(system.rescuer).must(200)  # the same idempotency keys, so there is one charge
    assert crashed.actors.read_state() == CHARGED.scenario.done


def test_check_fails_when_notices_follow_the_end_write(system: CrashTestSystem) -> None:
    crashed = _crash(system, ENDED, JOURNAL="NoticesAfterEnd")
    with pytest.raises(AssertionError, match="i10_every_notice"):
        crash_batches.verify(crashed)
    system.insert_notice(crashed.actors.read_sagas("pay")[-1]["saga_id"], crashed.actors.seller)
    crash_batches.verify(crashed)
