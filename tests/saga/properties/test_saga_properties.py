"""Runs the state machine: 300 examples of up to 40 steps in several processes, the same examples in every run.

    pytest tests/saga/properties/test_saga_properties.py                                the examples of `make verify`
    pytest tests/saga/properties/test_saga_properties.py --hypothesis-seed=N            other examples
    pytest tests/saga/properties/test_saga_properties.py --hypothesis-profile=soak      for hours

A failure is printed at once with the command that repeats it. Then it is shrunk for at most `SHRINK_SECONDS`.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import pytest
from hypothesis import HealthCheck, core, reproduce_failure, seed, settings

from tests.saga.in_process import process_pool
from tests.saga.properties.exploration import Failure, MachineClass, explore, shrink
from tests.saga.properties.state_machine import SagaStateMachine

pytestmark = pytest.mark.saga

BATCHES = 6  # more than processes, so that no process is idle for long
SHRINK_SECONDS = 120
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
    """A number of examples with one seed. It ends early when the file `stop` exists."""

    seed: int
    examples: int
    stop: Path


@dataclass(frozen=True)
class Report:
    """The number of steps of each example, and the first failure."""

    batch: Batch
    steps: list[int]
    failure: Failure | None


class StoppedError(Exception):
    """Another batch has failed, so this one ends."""


def test_system_matches_the_model_under_random_faults(capfd: pytest.CaptureFixture[str]) -> None:
    profile = settings()
    first = (core.global_force_seed or 0) * BATCHES
    with tempfile.TemporaryDirectory() as folder:
        stop = Path(folder, "stop")
        batches = [Batch(first + number, profile.max_examples // BATCHES, stop) for number in range(BATCHES)]
        if REPLAY in os.environ:
            batches = [Batch(0, 1, stop)]
        steps = _run_batches(batches, capfd)
    print(f"{len(steps)} examples with a median of {median(steps)} steps")


def _run_batches(batches: list[Batch], capfd: pytest.CaptureFixture[str]) -> list[int]:
    """Run all batches and return the steps of their examples. Fails the test at the first failure."""
    steps: list[int] = []
    with process_pool.open_pool(min(process_pool.count_workers(), len(batches))) as pool:
        running: list[Future[Report]] = [pool.submit(_run_batch, batch) for batch in batches]
        for done in as_completed(running):
            report = done.result()
            steps += report.steps
            if report.failure is None:
                continue
            for other in running:
                other.cancel()
            report.batch.stop.touch()
            with capfd.disabled():
                print(f"\n{_describe(report.failure)}\nShrinking for at most {SHRINK_SECONDS} s.", flush=True)
            shrunk = pool.submit(_shrink_failure, report.batch, report.failure).result()
            pytest.fail(_describe(shrunk), pytrace=False)
    return steps


def _run_batch(batch: Batch) -> Report:
    SagaStateMachine.steps_taken.clear()
    failure = explore(_make_machine(batch), settings(max_examples=batch.examples))
    if failure and StoppedError.__name__ in failure.text:
        failure = None
    return Report(batch, SagaStateMachine.steps_taken.copy(), failure)


def _shrink_failure(batch: Batch, failure: Failure) -> Failure:
    batch = replace(batch, stop=batch.stop.with_name("never"))
    return shrink(_make_machine(batch), failure, settings(max_examples=batch.examples), SHRINK_SECONDS)


def _make_machine(batch: Batch) -> MachineClass:
    def start(machine: SagaStateMachine) -> None:
        if batch.stop.exists():
            raise StoppedError
        super(SagaStateMachine, machine).__init__()

    SagaStateMachine.engine = process_pool.engine()
    name = f"SagaStateMachine{batch.seed}"
    machine: MachineClass = seed(batch.seed)(type(name, (SagaStateMachine,), {"__init__": start}))
    if REPLAY in os.environ:
        version, _, blob = os.environ[REPLAY].partition(":")
        reproduce_failure(version, blob.encode())(machine)
    return machine


def _describe(failure: Failure) -> str:
    command = f"{REPLAY}='{failure.blob}' pytest tests/saga/properties/test_saga_properties.py"
    return f"{failure.text}\nReplay: {command}"
