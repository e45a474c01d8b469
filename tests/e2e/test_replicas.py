"""Two orchestrators and two inventories: one of each is frozen or killed, and the others finish its work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness.api_client import ApiResponse
from tests.support.concurrency import outcomes
from tests.support.people import Person
from tests.support.system import TestSystem
from tests.support.traffic import BUYERS, NO_ANSWER, block_pay_after_charge, keep_buying

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

INVENTORY, ORCHESTRATOR = "inventory-service", "orchestrator-service"
ENDED_SECONDS = 10.0  # the lease of an orchestrator, and the interval of recovery
RECOVERED_SECONDS = 30.0


@pytest.fixture(scope="module")
def twins(system: TestSystem) -> Iterator[tuple[str, str]]:
    """Start a second inventory and a second orchestrator. Every orchestrator calls both inventories."""
    inventory = system.stack.start_replica(INVENTORY)
    both = {"INVENTORY_SERVICE_URL": system.stack.peers(INVENTORY, 50051)}
    system.stack.restart(ORCHESTRATOR, both)
    orchestrator = system.stack.start_replica(ORCHESTRATOR, both)
    yield inventory, orchestrator
    system.stack.start(INVENTORY)
    system.stack.restart(ORCHESTRATOR, {})
    for name in (orchestrator, inventory):
        system.stack.stop(name)


def count_holds(system: TestSystem, inventory: str) -> float:
    """Count the seats that one inventory has held since its start."""
    text = system.visitor(system.stack.url(inventory)).get("/metrics").body.decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == "inventory_holds_total")


def has_held_seats(system: TestSystem, inventory: str) -> bool:
    """Return whether an inventory has held more than a seat for each buyer."""
    return count_holds(system, inventory) > BUYERS


def accepts_pays(system: TestSystem, url: str) -> bool:
    """Return whether an orchestrator has loaded the revoked logins. Until then it returns 503 for a pay (D31)."""
    buyer = system.person("0.00")
    buyer.url = url
    return buyer.post("/api/pay", {}).status == 400


@contextmanager
def freeze(system: TestSystem, name: str) -> Iterator[None]:
    """Suspend the processes of `name` during the block. Their connections stay open."""
    leader = psutil.Process(system.stack.run_dir.read_record(name).pid)
    processes = [leader, *leader.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def test_a_frozen_orchestrator_that_wakes_changes_nothing(system: TestSystem, twins: tuple[str, str]) -> None:
    """A retry of the key has run at the other orchestrator, and the late request returns the answer of the retry."""
    awake, late = (system.stack.url(name) for name in (ORCHESTRATOR, twins[1]))
    seller, buyer, key = system.person(), system.person(), {"Idempotency-Key": str(uuid4())}
    body = {"seller_user_id": seller.user_id, "buyer_user_id": buyer.user_id, "credits_amount": 5}
    body["seat_id"] = system.insert_ticket(seller)
    for url in (awake, late):
        system.wait_until("an orchestrator accepts pays", partial(accepts_pays, system, url), RECOVERED_SECONDS)

    def initiate(url: str = awake) -> ApiResponse:
        return Person(url, seller.token, seller.user, pool=seller.pool).post("/api/transfer/initiate", body, **key)

    with ThreadPoolExecutor(1) as pool:
        with contextlib.ExitStack() as asleep:
            with system.smu.fault("hang", "/SendOTP", effect=False):
                first = pool.submit(initiate, late)
                system.wait_until("the transfer waits for SMU", lambda: system.smu.read("faults")["faults"][0]["fired"])
                asleep.enter_context(freeze(system, twins[1]))
            system.wait_until(
                "the other orchestrator has undone it",
                lambda: outcomes([initiate()]) == {"500 INTERNAL_ERROR": 1},
                ENDED_SECONDS,
            )
            retried = initiate()
        assert (first.result().status, first.result().data) == (201, retried.must(201))
    assert initiate().must(201) == retried.data
    sql = "SELECT status::text FROM transfers WHERE seat_id = %s"
    assert sorted(row["status"] for row in system.rows("orders_db", sql, body["seat_id"])) == ["FAILED", "PENDING_OTP"]


def test_killed_replicas_are_replaced_under_load(system: TestSystem, twins: tuple[str, str]) -> None:
    """One orchestrator and one inventory die during a pay. The others undo the pay and keep selling."""
    second_inventory, second_orchestrator = twins
    urls = [system.stack.url(ORCHESTRATOR), system.stack.url(second_orchestrator)]
    for url in urls:
        system.wait_until("an orchestrator accepts pays", partial(accepts_pays, system, url), RECOVERED_SECONDS)
    buyer = system.person("1000.00")
    buyer.url = urls[1]
    _, order_id = system.hold_seat(buyer)
    with keep_buying(system, *urls) as statuses:
        for name in (INVENTORY, second_inventory):
            system.wait_until("an inventory holds seats", partial(has_held_seats, system, name))
        with block_pay_after_charge(system, buyer, order_id) as paying:
            system.stack.kill(second_orchestrator)
            system.stack.kill(INVENTORY)
        holds, bought = count_holds(system, second_inventory), len(statuses)
        ended = "SELECT status::text FROM sagas WHERE flow = 'pay' AND subject = %s AND status <> 'RUNNING'"
        system.wait_until("the other one ends the pay", lambda: system.rows("sagas_db", ended, order_id), ENDED_SECONDS)
        system.wait_until("people buy again", lambda: statuses[bought:].count(200) > 4 * BUYERS, RECOVERED_SECONDS)
        assert count_holds(system, second_inventory) > holds + BUYERS
    paying.join()
    buyer.url = urls[0]
    assert set(statuses) <= {200, 409, 500, 503, NO_ANSWER}
    assert (system.order_status(order_id), buyer.balance()) == ("FAILED", 1000), "the charge is undone"
    system.assert_invariants()
