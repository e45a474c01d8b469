"""Fixtures of the end-to-end suite: one system for the session, and a check of the invariants after each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import Stack
from tests.support.running_stack import SeatPool
from tests.support.system import TestSystem

LAST = "test_all_logs"  # reads the logs of all other tests


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the module that reads the logs to the end."""
    items.sort(key=lambda item: item.path.stem == LAST)


@pytest.fixture(scope="session")
def system(stack: Stack, seats: SeatPool) -> TestSystem:
    """Return the running stack, with users and seats for every test."""
    return TestSystem(stack, seats)


@pytest.fixture(scope="module")
def invariants(system: TestSystem) -> Iterator[None]:
    """Check after the module that every invariant holds in all five databases."""
    system.hang_up()
    yield
    system.assert_invariants()
