"""Runs the state machine (`machine.py`): 300 examples of up to 40 steps, in several processes, the same in every run.

    pytest tests/saga/properties/test_saga_properties.py                                the examples of CI
    pytest tests/saga/properties/test_saga_properties.py --hypothesis-seed=N            others
    pytest tests/saga/properties/test_saga_properties.py --hypothesis-profile=soak      for hours

A failure prints the shrunk steps and the one command that replays them.
"""

from __future__ import annotations

import os
import re
import traceback
from dataclasses import dataclass
from statistics import median

import pytest
from hypothesis import HealthCheck, core, reproduce_failure, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.saga.in_process import process_pool
from tests.saga.properties.model import PRICE
from tests.saga.properties.state_machine import SagaStateMachine

pytestmark = pytest.mark.saga

BATCHES = 6  # whichever process is free takes the next
REPLAY = "MACHINE_REPLAY"  # hypothesis's version and blob of one failure

settings.register_profile(
    "default",
    max_examples=300,
    stateful_step_count=40,
    database=None,  # a batch is its seed: nothing of earlier runs
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
settings.register_profile("soak", parent=settings.get_profile("default"), max_examples=20_000)


@dataclass(frozen=True)
class Batch:
    """Some of the examples: a seed, and how many."""

    number: int
    examples: int


@dataclass(frozen=True)
class Report:
    """How many steps each example took, and how one failed."""

    steps: list[int]
    failure: str | None


def test_system_behaves_as_the_model_whatever_strikes() -> None:
    chosen = settings()
    first = (core.global_force_seed or 0) * BATCHES
    batches = [Batch(first + number, chosen.max_examples // BATCHES) for number in range(BATCHES)]
    if REPLAY in os.environ:
        batches = [Batch(0, 1)]
    reports = process_pool.spread(_explored, batches).values()
    failures = [report.failure for report in reports if report.failure]
    if failures:
        pytest.fail("\n\n".join(failures), pytrace=False)
    steps = [count for report in reports for count in report.steps]
    print(f"{len(steps)} examples, median {median(steps)} steps; each seat costs {PRICE}")


def _explored(batch: Batch) -> Report:
    SagaStateMachine.engine = process_pool.engine()
    SagaStateMachine.steps_taken.clear()
    machine = seed(batch.number)(type(f"SagaStateMachine{batch.number}", (SagaStateMachine,), {}))
    if REPLAY in os.environ:
        version, _, blob = os.environ[REPLAY].partition(":")
        reproduce_failure(version, blob.encode())(machine)
    try:
        run_state_machine_as_test(machine, settings=settings(max_examples=batch.examples))
    except Exception as failure:
        return Report(SagaStateMachine.steps_taken.copy(), _told(failure))
    return Report(SagaStateMachine.steps_taken.copy(), None)


def _told(failure: BaseException) -> str:
    text = "".join(traceback.format_exception(failure))
    blob = re.search(r"reproduce_failure\('([^']+)', b'([^']+)'\)", text)
    replay = (
        f"{REPLAY}='{blob[1]}:{blob[2]}' pytest tests/saga/properties/test_saga_properties.py" if blob else "(no blob)"
    )
    return f"{text}\nReplay: {replay}"
