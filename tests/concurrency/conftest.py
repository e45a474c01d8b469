"""What the concurrency suite shares: the session's stack as a system, its figures, the invariants at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import Stack
from tests.concurrency.figures import Figures
from tests.support.running_stack import Seats
from tests.support.system import TestSystem


@pytest.fixture(scope="session")
def figures() -> Figures:
    """Where measured figures go."""
    return Figures()


@pytest.fixture(scope="session")
def system(stack: Stack, seats: Seats) -> TestSystem:
    """The running stack, with people and seats for every test."""
    return TestSystem(stack, seats)


@pytest.fixture(scope="module")
def invariants(system: TestSystem) -> Iterator[None]:
    """At the end of the module every invariant holds over all five databases."""
    yield
    system.assert_invariants()
