"""The Event service with a real database and a stub for Inventory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from services.chassis.settings import DatabaseSettings
from tests.unit.event.event_service import EventService


@pytest.fixture
def service(database_for: Callable[[str], DatabaseSettings]) -> Iterator[EventService]:
    service = EventService(database_for("event"))
    yield service
    service.db.close()
