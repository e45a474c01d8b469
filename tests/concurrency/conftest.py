"""Fixtures of the concurrency suite: the running stack, the figures for the report, and the invariants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import Stack
from tests.concurrency.figures import Figures
from tests.support.running_stack import SeatPool
from tests.support.system import TestSystem


@pytest.fixture(scope="session")
def figures() -> Figures:
    """The figures for the report."""
    return Figures()


@pytest.fixture(scope="session")
def system(stack: Stack, seats: SeatPool) -> TestSystem:
    """The running stack, with users and seats for every test. Each of the few users may have many seats."""
    system = TestSystem(stack, seats)
    system.set_limits(0, 0)
    return system


@pytest.fixture(scope="module")
def invariants(system: TestSystem) -> Iterator[None]:
    """Check every invariant over all five databases when the module ends."""
    yield
    system.assert_invariants()
