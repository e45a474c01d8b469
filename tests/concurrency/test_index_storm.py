"""The partial unique index under load: of many concurrent transfers of one seat, one is open."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg2
import pytest

from harness.api_client import Api, ApiResponse
from harness.runtime.ports import HOST
from tests.concurrency.callers import make_credential
from tests.concurrency.figures import Figures
from tests.concurrency.patched_service import create_patched_database, run_patched
from tests.support.concurrency import outcomes, run_concurrently
from tests.support.system import TestSystem

pytestmark = [pytest.mark.concurrency, pytest.mark.usefixtures("invariants")]

INITIATIONS = 100
NO_INDEX = "DROP INDEX one_open_transfer_a_seat"
ONE_OPENED = {"201": 1, "409 TRANSFER_IN_PROGRESS": INITIATIONS - 1}


def connect_order(system: TestSystem, url: str) -> Api:
    """Return a client of the Order service with the orchestrator's credential."""
    return Api(url, token=make_credential(system.stack, "order-service").header().removeprefix("Bearer "))


def initiate_concurrently(order: Api, seat: str) -> list[ApiResponse]:
    """Initiate concurrent transfers of one seat, each with its own id, key and parties."""
    return run_concurrently([partial(_initiate, order, seat) for _ in range(INITIATIONS)])


def _initiate(order: Api, seat: str) -> ApiResponse:
    ids = {name: str(uuid4()) for name in ("transfer_id", "order_id", "seller_user_id", "buyer_user_id")}
    key = f"initiate:{ids['transfer_id']}:1:create_transfer"
    return order.post(
        "/transfers", {**ids, "key": key, "seat_id": seat, "initiated_by": "SELLER", "credits_amount": 10}
    )


def count_open(dsn: str, seat: str) -> int:
    """Return the number of open transfers of the seat in the database."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM transfers WHERE seat_id = %s AND status = 'INITIATED'", (seat,))
        return int((cursor.fetchone() or (0,))[0])


def assert_one_is_open(order: Api, dsn: str, seat: str) -> list[ApiResponse]:
    """Assert that one transfer is open. The negative control must fail this check."""
    answers = initiate_concurrently(order, seat)
    number = count_open(dsn, seat)
    assert number == 1, f"{number} transfers of one seat are open"
    assert outcomes(answers) == ONE_OPENED
    return answers


@pytest.mark.claim(
    "schema/one-open-transfer-index",
    "transfer/one-open-per-seat",
    "lock/open-transfer-index",
    "lock/transfer-race-has-loser",
)
def test_one_of_100_concurrent_initiations_is_open(system: TestSystem, figures: Figures) -> None:
    order = connect_order(system, system.stack.url("order-service"))
    answers = assert_one_is_open(order, system.stack.admin_dsn("orders_db"), system.seat())
    won: Any = next(answer for answer in answers if answer.status == 201).data
    figures.add("index storm", initiations=INITIATIONS, opened=1)
    order.post(f"/transfers/{won['transfer_id']}/cancel", {"key": f"cancel:{won['transfer_id']}:1:cancel"}).must(200)


@pytest.mark.negative_control
def test_several_transfers_are_open_without_the_index(system: TestSystem, figures: Figures) -> None:
    with (
        create_patched_database(system.stack, "order-service", NO_INDEX) as (name, dsn),
        run_patched(system.stack, "order-service", "", {"DB_NAME": name}) as ports,
    ):
        order = connect_order(system, f"http://{HOST}:{ports['PORT']}")
        with pytest.raises(AssertionError, match="transfers of one seat are open"):
            assert_one_is_open(order, dsn, seat := system.seat())
        figures.add("index storm without the index", initiations=INITIATIONS, opened=count_open(dsn, seat))
