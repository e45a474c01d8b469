"""Fixtures of the Order unit tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from services.chassis.settings import DatabaseSettings
from tests.support.databases import Databases
from tests.unit.order.order_service import OrderService

ELEVEN_MINUTES = 660


@pytest.fixture(scope="module")
def service(database_for: Callable[[str], DatabaseSettings]) -> Iterator[OrderService]:
    """The Order service, built once for a module."""
    service = OrderService(database_for("order"))
    yield service
    service.db.close()


@pytest.fixture(scope="module")
def impatient(database_for: Callable[[str], DatabaseSettings]) -> Iterator[OrderService]:
    """An Order service that soon gives up a locked row."""
    service = OrderService(database_for("order"), lock_seconds=0.2)
    yield service
    service.db.close()


@pytest.fixture
def expire_transfers(databases: Databases) -> Iterator[Callable[[], None]]:
    """A function that moves the clock eleven minutes ahead until the end of the test."""
    yield lambda: databases.shift_clock("order", ELEVEN_MINUTES)
    databases.shift_clock("order", 0)
