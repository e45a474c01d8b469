"""Services with two processes: one of them is frozen or killed, and the others finish its work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness.api_client import ApiResponse
from tests.support.concurrency import outcomes
from tests.support.people import Person
from tests.support.running_stack import native_only
from tests.support.system import TestSystem
from tests.support.traffic import BUYERS, NO_ANSWER, Timed, block_pay_after_charge, freeze, keep_buying

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

INVENTORY, ORCHESTRATOR, USER = "inventory-service", "orchestrator-service", "user-service"
GATEWAY = "api-gateway"
READ_TIMEOUT = 8.0  # seconds, of the gateway
ONE_TRY = 2.0  # seconds, the timeout of a call
ENDED_SECONDS = 10.0  # the lease of an orchestrator, and the interval of recovery
RECOVERED_SECONDS = 30.0


class Twins(NamedTuple):
    """The names of the second processes."""

    inventory: str
    orchestrator: str
    user: str


@pytest.fixture(scope="module")
def twins(system: TestSystem) -> Iterator[Twins]:
    """Start a second process of three services. Every orchestrator calls both processes of the other two."""
    inventory, user = system.stack.start_replica(INVENTORY), system.stack.start_replica(USER)
    both = {"INVENTORY_SERVICE_URL": system.stack.peers(INVENTORY, 50051)}
    both["USER_SERVICE_URL"] = f"http://{system.stack.peers(USER, 5000)}"
    system.stack.restart(ORCHESTRATOR, both)
    orchestrator = system.stack.start_replica(ORCHESTRATOR, both)
    yield Twins(inventory, orchestrator, user)
    system.stack.start(INVENTORY)
    system.stack.restart(ORCHESTRATOR, {})
    for name in (orchestrator, inventory, user):
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


def test_a_frozen_orchestrator_that_wakes_changes_nothing(system: TestSystem, twins: Twins) -> None:
    """A retry of the key has run at the other orchestrator, and the late request returns the answer of the retry."""
    awake, late = (system.stack.url(name) for name in (ORCHESTRATOR, twins.orchestrator))
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
                asleep.enter_context(freeze(system, twins.orchestrator))
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


def find_slow(system: TestSystem, hung: str) -> list[float]:
    """Buy seats while a process hangs, and return the seconds of the slow calls. Every call must succeed."""
    buyers, timed = buyers_at(system, 12), Timed()
    with freeze(system, hung):
        for buyer in buyers:
            order_id = timed(buyer.reserve, system.seat()).must(200)["order_id"]
            timed(buyer.pay, order_id).must(200)
            timed(buyer.get, "/api/tickets").must(200)
            timed(buyer.get, "/api/credits/balance").must(200)
    return [each for each in timed.seconds if each > ONE_TRY / 2]


def buyers_at(system: TestSystem, number: int) -> list[Person]:
    """Return buyers who call the first orchestrator."""
    url = system.stack.url(ORCHESTRATOR)
    system.wait_until("the orchestrator accepts pays", partial(accepts_pays, system, url), RECOVERED_SECONDS)
    return [buyer.at(url) for buyer in system.people(number)]


def test_a_hung_inventory_is_left_out_until_it_wakes(system: TestSystem, twins: Twins) -> None:
    """Its calls go to the other one under the same keys, so a customer gets one slow answer, and no error."""

    def holds_seats() -> bool:
        for buyer in buyers_at(system, 2):
            system.hold_seat(buyer)
        return count_holds(system, twins.inventory) > held

    held = count_holds(system, twins.inventory)
    system.wait_until("both inventories hold seats", holds_seats)
    assert len(find_slow(system, twins.inventory)) <= 2
    held = count_holds(system, twins.inventory)
    system.wait_until("the woken one holds seats", holds_seats, ENDED_SECONDS)
    system.assert_invariants()


def test_a_hung_user_service_is_left_out_until_it_wakes(system: TestSystem, twins: Twins) -> None:
    """The same over HTTP."""

    def answers() -> bool:
        reader.get("/api/credits/balance").must(200)
        return bool(system.log_lines(twins.user, reader.user_id))

    (reader,) = buyers_at(system, 1)
    system.wait_until("both answer", answers)
    assert len(find_slow(system, twins.user)) <= 2
    (reader,) = buyers_at(system, 1)  # the log has no line about this user yet
    system.wait_until("the woken one answers", answers, ENDED_SECONDS)
    system.assert_invariants()


@pytest.fixture
def gateway_to_both(system: TestSystem, twins: Twins) -> Iterator[None]:
    """The gateway has both orchestrators as targets."""
    system.stack.restart(GATEWAY, {"ORCHESTRATOR_URL": f"http://{system.stack.peers(ORCHESTRATOR, 5003)}"})
    yield
    system.stack.restart(GATEWAY, {})


@native_only("a name has all addresses of a service there, so the gateway has one target")
def test_a_hung_orchestrator_gets_no_requests_of_the_gateway(
    system: TestSystem, twins: Twins, gateway_to_both: None
) -> None:
    """The first clients wait for the read timeout. A read is then repeated at the other one."""

    def answers() -> bool:
        reader.get("/api/credits/balance").must(200)
        return bool(system.log_lines(twins.orchestrator, reader.user_id))

    accepts = partial(accepts_pays, system, system.stack.url(ORCHESTRATOR))
    system.wait_until("the orchestrator accepts pays", accepts, RECOVERED_SECONDS)
    reader, *buyers = system.people(12)
    system.wait_until("both get requests", answers)
    first, later = Timed(), Timed()
    with freeze(system, twins.orchestrator):
        for _ in range(2):
            first(reader.get, "/api/credits/balance").must(200)
        for buyer in buyers:
            order_id = later(buyer.reserve, system.seat()).must(200)["order_id"]
            later(buyer.pay, order_id).must(200)
    assert max(first.seconds) < READ_TIMEOUT + ONE_TRY
    assert max(later.seconds) < ONE_TRY
    (reader,) = system.people(1)  # the log has no line about this user yet
    system.wait_until("the woken one answers", answers, ENDED_SECONDS)
    system.assert_invariants()


def test_killed_replicas_are_replaced_under_load(system: TestSystem, twins: Twins) -> None:
    """One orchestrator and one inventory die during a pay. The others undo the pay and keep selling."""
    second_inventory, second_orchestrator = twins.inventory, twins.orchestrator
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
