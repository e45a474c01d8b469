"""Inventory over gRPC with a real database, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.databases import Databases
from tests.unit.inventory.inventory_service import InventoryService


@pytest.fixture(scope="module")
def inventory(databases: Databases) -> Iterator[InventoryService]:
    service = InventoryService(databases)
    yield service
    service.close()


@pytest.fixture(scope="module")
def impatient(databases: Databases) -> Iterator[InventoryService]:
    """An Inventory that soon gives up a locked row. Use it only for calls that must meet one."""
    service = InventoryService(databases, lock_seconds=0.2)
    yield service
    service.close()
