"""Runs the state machine: 300 examples of up to 40 steps in several processes, the same examples in every run.

    pytest tests/saga/properties/test_saga_properties.py                                the examples of `make verify`
    pytest tests/saga/properties/test_saga_properties.py --hypothesis-seed=N            other examples
    pytest tests/saga/properties/test_saga_properties.py --hypothesis-profile=soak      for hours

A failure prints the shrunk steps and the command that repeats them.
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
from tests.saga.properties.state_machine import SagaStateMachine

pytestmark = pytest.mark.saga

BATCHES = 6  # more than processes, so that no process is idle for long
REPLAY = "MACHINE_REPLAY"  # a variable with the version and blob of Hypothesis for one failure

settings.register_profile(
    "default",
    max_examples=300,
    stateful_step_count=40,
    database=None,  # each batch depends only on its seed
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
settings.register_profile("soak", parent=settings.get_profile("default"), max_examples=20_000)


@dataclass(frozen=True)
class Batch:
    """A number of examples with one seed."""

    seed: int
    examples: int


@dataclass(frozen=True)
class Report:
    """The number of steps of each example, and the first failure."""

    steps: list[int]
    failure: str | None


def test_system_matches_the_model_under_random_faults() -> None:
    profile = settings()
    first = (core.global_force_seed or 0) * BATCHES
    batches = [Batch(first + number, profile.max_examples // BATCHES) for number in range(BATCHES)]
    if REPLAY in os.environ:
        batches = [Batch(0, 1)]
    reports = process_pool.map_in_processes(_run_batch, batches).values()
    failures = [report.failure for report in reports if report.failure]
    if failures:
        pytest.fail("\n\n".join(failures), pytrace=False)
    steps = [count for report in reports for count in report.steps]
    print(f"{len(steps)} examples with a median of {median(steps)} steps")


def _run_batch(batch: Batch) -> Report:
    SagaStateMachine.engine = process_pool.engine()
    SagaStateMachine.steps_taken.clear()
    machine = seed(batch.seed)(type(f"SagaStateMachine{batch.seed}", (SagaStateMachine,), {}))
    if REPLAY in os.environ:
        version, _, blob = os.environ[REPLAY].partition(":")
        reproduce_failure(version, blob.encode())(machine)
    try:
        run_state_machine_as_test(machine, settings=settings(max_examples=batch.examples))
    except Exception as failure:
        return Report(SagaStateMachine.steps_taken.copy(), _describe(failure))
    return Report(SagaStateMachine.steps_taken.copy(), None)


def _describe(failure: BaseException) -> str:
    text = "".join(traceback.format_exception(failure))
    blob = re.search(r"reproduce_failure\('([^']+)', b'([^']+)'\)", text)
    replay = (
        f"{REPLAY}='{blob[1]}:{blob[2]}' pytest tests/saga/properties/test_saga_properties.py" if blob else "(no blob)"
    )
    return f"{text}\nReplay: {replay}"
