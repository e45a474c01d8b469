"""Fixtures of the abuse suite: the running stack, attackers with many addresses, and honest buyers in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from harness import Stack
from tests.abuse.honest_buyers import HonestBuyers
from tests.support.running_stack import SeatPool
from tests.support.system import TestSystem


@pytest.fixture(scope="session")
def system(stack: Stack, seats: SeatPool) -> TestSystem:
    """The running stack, with users and seats for every test."""
    return TestSystem(stack, seats)


@pytest.fixture(scope="module")
def invariants(system: TestSystem) -> Iterator[None]:
    """Check every invariant over all five databases when the module ends."""
    system.hang_up()
    yield
    system.assert_invariants()


@pytest.fixture
def honest_buyers(system: TestSystem) -> Callable[[], HonestBuyers]:
    """`with honest_buyers():` buys tickets during the block, and fails unless every purchase succeeds."""
    return lambda: HonestBuyers(system)
