"""The sweeper: expired orders and transfers fail, all others stay unchanged."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.chassis.errors import ConfigurationError
from services.chassis.settings import Env
from services.chassis.worker import Worker
from services.order import order_otp, order_store
from services.order import sweeper as sweeping
from services.order.settings import Settings
from services.order.sweeper import Sweeper
from tests.support.databases import Databases
from tests.support.query_plans import explain_during_sale
from tests.support.service_settings import key_environment, new_key
from tests.support.waiting import wait_until
from tests.unit.order.order_service import OrderService

pytestmark = pytest.mark.unit
GRACE = 5.0


def time_ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


@pytest.fixture
def sweep(service: OrderService) -> Callable[[], None]:
    sweeper = Sweeper(service.db, grace_seconds=GRACE)

    def sweep_all() -> None:
        while sweeper.sweep():
            pass

    return sweep_all


@pytest.mark.claim("hold/pending-order-fails")
def test_pending_order_fails_after_expiry_and_grace(service: OrderService, sweep: Callable[[], None]) -> None:
    expired, within_grace, current = (service.add_pending(expires_at=time_ago(s)) for s in (GRACE + 1, 1, -60))
    confirmed = service.add_confirmed(expires_at=time_ago(GRACE + 1))
    sweep()
    statuses = [service.order(order_id)["status"] for order_id in (expired, within_grace, current, confirmed)]
    assert statuses == ["FAILED", "PENDING", "PENDING", "CONFIRMED"]


def test_open_transfer_fails_after_expiry(
    service: OrderService, sweep: Callable[[], None], expire_transfers: Callable[[], None]
) -> None:
    transfers = [service.add_initiated(), service.add_awaiting(), service.add_half_verified()]
    sweep()
    assert {service.transfer(transfer_id)["status"] for transfer_id in transfers} == {"INITIATED", "PENDING_OTP"}
    expire_transfers()
    sweep()
    assert {service.transfer(transfer_id)["status"] for transfer_id in transfers} == {"FAILED"}


def test_sweeper_skips_a_verified_transfer(
    service: OrderService, sweep: Callable[[], None], expire_transfers: Callable[[], None]
) -> None:
    transfers = [service.add_verified(), service.add_completed()]
    expire_transfers()
    sweep()
    assert [service.transfer(transfer_id)["status"] for transfer_id in transfers] == ["PENDING_OTP", "COMPLETED"]


def test_sweeper_skips_a_locked_order(service: OrderService, sweep: Callable[[], None]) -> None:
    order_id = service.add_pending(expires_at=time_ago(60))
    with service.db.transaction() as tx:
        tx.one("SELECT 1 FROM orders WHERE order_id = %(id)s FOR UPDATE", id=UUID(order_id))
        sweep()
    assert service.order(order_id)["status"] == "PENDING"
    sweep()
    assert service.order(order_id)["status"] == "FAILED"


def test_confirm_after_the_sweep_is_refused(service: OrderService, sweep: Callable[[], None]) -> None:
    order_id = service.add_pending(expires_at=time_ago(60))
    sweep()
    assert service.confirm(order_id, new_key("confirm")).code == "ORDER_FAILED"


def test_sweep_continues_after_a_full_batch(
    service: OrderService, sweep: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "BATCH", 2)
    overdue = [service.add_pending(expires_at=time_ago(60)) for _ in range(5)]
    sweep()
    assert {service.order(order_id)["status"] for order_id in overdue} == {"FAILED"}


def test_service_starts_its_sweeper(service: OrderService) -> None:
    (worker,) = service.app.extensions["background"]
    assert isinstance(worker, Worker)
    overdue = service.add_pending(expires_at=time_ago(3600))
    worker.start()
    wait_until(lambda: service.order(overdue)["status"] == "FAILED")
    worker.stop()


ENVIRONMENT = {
    **key_environment("order-service"),
    "DB_HOST": "h",
    "DB_NAME": "n",
    "DB_USER": "u",
    "DB_PASS": "p",
}


def test_settings_have_defaults_and_name_bad_variables() -> None:
    settings = Settings.read(Env(ENVIRONMENT))
    assert (settings.process.port, settings.sweep_seconds, settings.grace_seconds) == (5001, 5.0, 5.0)
    broken: list[tuple[dict[str, Any], str]] = [
        ({"SWEEP_SECONDS": "often"}, "SWEEP_SECONDS"),
        ({"DB_HOST": ""}, "DB_HOST"),
    ]
    for change, name in broken:
        with pytest.raises(ConfigurationError, match=name):
            Settings.read(Env({**ENVIRONMENT, **change}))


def test_only_the_sweeper_uses_its_index(databases: Databases) -> None:
    """A lookup by key and status must not scan every PENDING order."""
    insert = """
        INSERT INTO orders (order_id, user_id, seat_id, event_id, status, credits_charged, otp_required, expires_at)
        SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), '{}', 10, false, app_now()
        FROM generate_series(1, {})"""
    parameters = {
        "order_id": UUID(int=1),
        "key": "k",
        "charge_key": "k",
        "max_attempts": 3,
        "sid": "s",
        "from_status": "PENDING",
    }
    by_key = [order_store._CONFIRM, order_store._FAIL, order_store._EXPIRE, order_store._STORE_SID]
    by_key += [order_otp._TAKE, order_otp._APPROVE, order_otp._REJECT]
    with explain_during_sale(
        databases, "order", "orders", insert.format("FAILED", 5000), insert.format("PENDING", 500)
    ) as explain:
        assert [sql for sql in by_key if "orders_pkey" not in explain(sql, **parameters)] == []
        assert "orders_due" in explain(sweeping._ORDERS, grace=GRACE, batch=sweeping.BATCH)
