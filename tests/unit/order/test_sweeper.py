"""The sweeper: what nobody came back for ends by itself, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.chassis.errors import ConfigurationError
from services.chassis.settings import DatabaseSettings, Env
from services.chassis.worker import Worker
from services.order import order_otp, order_store
from services.order import sweeper as sweeping
from services.order.settings import Settings
from services.order.sweeper import Sweeper
from tests.support.databases import Databases
from tests.support.query_plans import amid_a_sale
from tests.support.waiting import wait_until
from tests.unit.order.order_service import INTERNAL_SECRET, SECRET, OrderService, a_key

pytestmark = pytest.mark.unit
GRACE = 5.0


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


@pytest.fixture(scope="module")
def service(database_for: Callable[[str], DatabaseSettings]) -> Iterator[OrderService]:
    service = OrderService(database_for("order"))
    yield service
    service.db.close()


@pytest.fixture
def sweep(service: OrderService) -> Callable[[], None]:
    sweeper = Sweeper(service.db, grace_seconds=GRACE)

    def until_done() -> None:
        while sweeper.sweep():
            pass

    return until_done


@pytest.fixture
def later(databases: Databases) -> Iterator[Callable[[], None]]:
    yield lambda: databases.shift_clock("order", 660)
    databases.shift_clock("order", 0)


@pytest.mark.claim("hold/pending-order-fails")
def test_a_pending_order_fails_once_its_time_and_grace_are_over(
    service: OrderService, sweep: Callable[[], None]
) -> None:
    over, within_grace, in_time = (service.pending(expires_at=ago(s)) for s in (GRACE + 1, 1, -60))
    sold = service.confirmed(expires_at=ago(GRACE + 1))
    sweep()
    statuses = [service.order(order_id)["status"] for order_id in (over, within_grace, in_time, sold)]
    assert statuses == ["FAILED", "PENDING", "PENDING", "CONFIRMED"]


def test_an_open_transfer_fails_once_its_time_is_over(
    service: OrderService, sweep: Callable[[], None], later: Callable[[], None]
) -> None:
    open_ones = [service.initiated(), service.awaiting(), service.awaiting()]
    service.try_code(f"transfers/{open_ones[2]}", "approved", party="BUYER")
    sweep()
    assert {service.transfer(transfer_id)["status"] for transfer_id in open_ones} == {"INITIATED", "PENDING_OTP"}
    later()
    sweep()
    assert {service.transfer(transfer_id)["status"] for transfer_id in open_ones} == {"FAILED"}


def test_a_transfer_that_both_have_verified_is_left_to_its_swap(
    service: OrderService, sweep: Callable[[], None], later: Callable[[], None]
) -> None:
    kept = [service.verified(), service.completed()]
    later()
    sweep()
    assert [service.transfer(transfer_id)["status"] for transfer_id in kept] == ["PENDING_OTP", "COMPLETED"]


def test_an_order_that_is_being_decided_is_skipped(service: OrderService, sweep: Callable[[], None]) -> None:
    order_id = service.pending(expires_at=ago(60))
    with service.db.transaction() as tx:
        tx.one("SELECT 1 FROM orders WHERE order_id = %(id)s FOR UPDATE", id=UUID(order_id))
        sweep()
    assert service.order(order_id)["status"] == "PENDING"
    sweep()
    assert service.order(order_id)["status"] == "FAILED"


def test_a_confirm_that_comes_after_the_sweep_is_refused(service: OrderService, sweep: Callable[[], None]) -> None:
    order_id = service.pending(expires_at=ago(60))
    sweep()
    assert service.confirm(order_id, a_key("confirm")).code == "ORDER_FAILED"


def test_more_than_a_batch_is_swept_at_once(
    service: OrderService, sweep: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "BATCH", 2)
    overdue = [service.pending(expires_at=ago(60)) for _ in range(5)]
    sweep()
    assert {service.order(order_id)["status"] for order_id in overdue} == {"FAILED"}


def test_the_sweeper_runs_beside_the_requests(service: OrderService) -> None:
    (worker,) = service.app.extensions["background"]
    assert isinstance(worker, Worker)
    overdue = service.pending(expires_at=ago(3600))
    worker.start()
    wait_until(lambda: service.order(overdue)["status"] == "FAILED")
    worker.stop()


ENVIRONMENT = {
    "JWT_SECRET": SECRET,
    "INTERNAL_JWT_SECRET": INTERNAL_SECRET,
    "DB_HOST": "h",
    "DB_NAME": "n",
    "DB_USER": "u",
    "DB_PASS": "p",
}


def test_settings_have_defaults_and_say_what_is_wrong() -> None:
    settings = Settings.read(Env(ENVIRONMENT))
    assert (settings.process.port, settings.sweep_seconds, settings.grace_seconds) == (5001, 5.0, 5.0)
    broken: list[tuple[dict[str, Any], str]] = [
        ({"SWEEP_SECONDS": "often"}, "SWEEP_SECONDS"),
        ({"DB_HOST": ""}, "DB_HOST"),
    ]
    for change, name in broken:
        with pytest.raises(ConfigurationError, match=name):
            Settings.read(Env({**ENVIRONMENT, **change}))


def test_the_sweepers_index_is_its_own(databases: Databases) -> None:
    """A look-up by key that names the status too must not walk every order that is PENDING."""
    made = """
        INSERT INTO orders (order_id, user_id, seat_id, event_id, status, credits_charged, otp_required, expires_at)
        SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), '{}', 10, false, app_now()
        FROM generate_series(1, {})"""
    one = {"order_id": UUID(int=1), "key": "k", "charge_key": "k", "max_attempts": 3, "sid": "s", "made": "PENDING"}
    by_key = [order_store._CONFIRM, order_store._FAIL, order_store._EXPIRE, order_store._STORE_SID]
    by_key += (order_otp._TAKE, order_otp._APPROVE, order_otp._MISS)
    with amid_a_sale(databases, "order", "orders", made.format("FAILED", 5000), made.format("PENDING", 500)) as explain:
        assert [sql for sql in by_key if "orders_pkey" not in explain(sql, **one)] == []
        assert "orders_due" in explain(sweeping._ORDERS, grace=GRACE, batch=sweeping.BATCH)
