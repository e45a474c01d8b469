"""A failure of a state machine is reported before it is shrunk, and shrinking has a limit."""

from __future__ import annotations

import time

import pytest
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.saga.properties.exploration import MachineClass, explore, shrink

pytestmark = pytest.mark.saga

PROFILE = settings(max_examples=200, stateful_step_count=40, deadline=None, print_blob=True)
STEP_SECONDS = 0.01  # the time that a step of the whole system would take


class Counter(RuleBasedStateMachine):
    """A machine that fails once the sum of its steps is too large. Its examples are long and can be shrunk a lot."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    @rule(amount=st.integers(0, 1000))
    def add(self, amount: int) -> None:
        self.total += amount
        assert self.total < 3000


class SlowCounter(Counter):
    @rule()
    def work(self) -> None:
        time.sleep(STEP_SECONDS)


class CorrectCounter(RuleBasedStateMachine):
    @rule()
    def do_nothing(self) -> None:
        pass


def give_seed(machine: MachineClass) -> MachineClass:
    """Give a machine a seed, so that every run is the same."""
    return seed(1)(type("Seeded", (machine,), {}))


def count_steps(text: str) -> int:
    """Count the steps in a failure."""
    return text.count("state.add(") + text.count("state.work(")


def test_failure_has_its_steps_and_its_blob_before_it_is_shrunk() -> None:
    failure = explore(give_seed(Counter), PROFILE)
    assert failure is not None
    assert failure.blob
    shrunk = shrink(give_seed(Counter), failure, PROFILE, seconds=60)
    assert shrunk.blob
    assert 3 <= count_steps(shrunk.text) < count_steps(failure.text)


def test_shrinking_ends_at_its_limit_with_what_it_has() -> None:
    failure = explore(give_seed(SlowCounter), PROFILE)
    assert failure is not None
    began = time.monotonic()
    shrunk = shrink(give_seed(SlowCounter), failure, PROFILE, seconds=1)
    assert time.monotonic() - began < 20
    assert shrunk.blob
    assert "AssertionError" in shrunk.text


def test_machine_without_a_fault_has_no_failure() -> None:
    assert explore(give_seed(CorrectCounter), settings(PROFILE, max_examples=5)) is None
