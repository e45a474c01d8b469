"""What the concurrency suite shares: the session's stack as a town, its figures, the invariants at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import Stack
from tests.concurrency.figures import Figures
from tests.e2e.town import Town
from tests.stack import Seats


@pytest.fixture(scope="session")
def figures() -> Figures:
    """Where measured figures go."""
    return Figures()


@pytest.fixture(scope="session")
def town(stack: Stack, seats: Seats) -> Town:
    """The running stack, with people and seats for every test."""
    return Town(stack, seats)


@pytest.fixture(scope="module")
def invariants(town: Town) -> Iterator[None]:
    """At the end of the module every invariant holds over all five databases."""
    yield
    town.assert_invariants()
