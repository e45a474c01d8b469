"""What the end-to-end suite shares: one town on the session's stack, and the invariants at the end of each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import Stack
from tests.e2e.town import Town
from tests.stack import Seats

FIRST, LAST = "test_idle_stack", "test_all_logs"  # measures a stack that has done nothing; reads what all have logged


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put two modules of this directory where only they make sense."""
    items.sort(key=lambda item: (item.path.stem == FIRST) * -1 + (item.path.stem == LAST))


@pytest.fixture(scope="session")
def town(stack: Stack, seats: Seats) -> Town:
    """The running stack, with people and seats for every test."""
    return Town(stack, seats)


@pytest.fixture(scope="module")
def invariants(town: Town) -> Iterator[None]:
    """At the end of the module every invariant holds over all five databases."""
    yield
    town.assert_invariants()
