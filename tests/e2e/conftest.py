"""What the end-to-end suite shares: one town on the session's stack, and the invariants at the end of each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import Stack
from tests.e2e.town import Town
from tests.stack import Seats

LAST = "test_all_logs"  # reads what everybody has logged


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put one module at the end of the session."""
    items.sort(key=lambda item: item.path.stem == LAST)


@pytest.fixture(scope="session")
def town(stack: Stack, seats: Seats) -> Town:
    """The running stack, with people and seats for every test."""
    return Town(stack, seats)


@pytest.fixture(scope="module")
def invariants(town: Town) -> Iterator[None]:
    """At the end of the module every invariant holds over all five databases."""
    town.hang_up()
    yield
    town.assert_invariants()
