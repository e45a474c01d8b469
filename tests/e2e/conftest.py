"""What the end-to-end suite shares: one system on the session's stack, and the invariants at the end of each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import Stack
from tests.support.running_stack import SeatPool
from tests.support.system import TestSystem

LAST = "test_all_logs"  # reads what everybody has logged


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put one module at the end of the session."""
    items.sort(key=lambda item: item.path.stem == LAST)


@pytest.fixture(scope="session")
def system(stack: Stack, seats: SeatPool) -> TestSystem:
    """The running stack, with people and seats for every test."""
    return TestSystem(stack, seats)


@pytest.fixture(scope="module")
def invariants(system: TestSystem) -> Iterator[None]:
    """At the end of the module every invariant holds over all five databases."""
    system.hang_up()
    yield
    system.assert_invariants()
