"""When a new order runs out: any moment that JSON can spell is stored, or refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from services.chassis.settings import DatabaseSettings
from tests.unit.order.order_service import OrderService

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def service(database_for: Callable[[str], DatabaseSettings]) -> Iterator[OrderService]:
    service = OrderService(database_for("order"))
    yield service
    service.db.close()


def test_an_expiry_with_an_offset_that_postgresql_does_not_take_is_kept_in_utc(service: OrderService) -> None:
    reply = service.create(expires_at="2030-01-01T10:00:00+23:55")
    assert reply.status == 201
    assert reply.data["expires_at"] == "2029-12-31T10:05:00Z"


def test_an_expiry_outside_the_calendar_is_refused(service: OrderService) -> None:
    assert service.create(expires_at="9999-12-31T23:59:59-10:00").code == "VALIDATION_ERROR"
