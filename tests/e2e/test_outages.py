"""PostgreSQL and RabbitMQ go away under the stack and come back: every service recovers by itself (issues 2 and 3)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import pytest
import urllib3

from tests.support import queue_admin
from tests.support.people import Person
from tests.support.system import SERVICES, TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

BUYERS = 3
RECOVERED_SECONDS = 30.0
ENDED_SECONDS = 5.0  # of an orchestrator being ready, with all participants up


def pids(system: TestSystem) -> dict[str, int]:
    """Which process each service is."""
    return {service: system.stack.run_dir.read_record(service).pid for service in SERVICES}


@contextmanager
def traffic(system: TestSystem) -> Iterator[list[int]]:
    """People who buy, one purchase after the other, whatever happens; the statuses that they got."""
    over, statuses = threading.Event(), []

    def keep_buying() -> None:
        buyer = system.person("100000.00")
        while not over.is_set():
            try:
                held = buyer.reserve(system.seat())
                statuses.append(held.status)
                if held.status == 200:
                    statuses.append(buyer.pay(held.data["order_id"]).status)
            except urllib3.exceptions.HTTPError:
                statuses.append(599)
            over.wait(0.25)  # between two purchases, as people do

    buyers = [threading.Thread(target=keep_buying) for _ in range(BUYERS)]
    for buyer in buyers:
        buyer.start()
    try:
        yield statuses
    finally:
        over.set()
        for buyer in buyers:
            buyer.join()


def bounce(system: TestSystem, name: str, how: str) -> None:
    """Take a process away and put it back."""
    (system.stack.kill if how == "kill" else system.stack.stop)(name)
    system.stack.start(name)


# RabbitMQ stopped in good order is test_expiry's: it takes long to come back
@pytest.mark.parametrize(("name", "how"), [("postgres", "stop"), ("postgres", "kill"), ("rabbitmq", "kill")])
def test_every_service_recovers_by_itself_and_no_invariant_is_broken(system: TestSystem, name: str, how: str) -> None:
    before = pids(system)
    with queue_admin.message_survives(system.stack), traffic(system) as statuses:
        system.wait_until("people are buying", lambda: statuses.count(200) > BUYERS)
        bounce(system, name, how)
        system.wait_until("every service is well", system.is_healthy, RECOVERED_SECONDS)
        system.wait_until("a purchase goes through", lambda: can_buy(system), RECOVERED_SECONDS)
        bought = len(statuses)
        system.wait_until("people buy again", lambda: statuses[bought:].count(200) > BUYERS)
    assert pids(system) == before, "no service was restarted"
    assert set(statuses) <= {200, 500, 503, 409}, "an answer in the envelope, whatever happened"
    assert 200 in statuses
    system.assert_invariants()


def can_buy(system: TestSystem) -> bool:
    """Whether a purchase of somebody new goes through."""
    buyer = system.person()
    held = buyer.reserve(system.seat())
    return held.status == 200 and buyer.pay(held.data["order_id"]).status == 200


@pytest.mark.claim("layers/orchestrator-coordinates-flows", "pay/refunds-when-seat-refused")
def test_an_orchestrator_killed_between_charge_and_confirm_has_its_saga_ended_in_five_seconds(
    system: TestSystem,
) -> None:
    buyer = system.person("1000.00")
    seat, order_id = system.hold_seat(buyer)
    charged = "SELECT 1 FROM credit_entries WHERE user_id = %s AND kind = 'DEDUCT'"
    ended = "SELECT status::text FROM sagas WHERE flow = 'pay' AND subject = %s AND status <> 'RUNNING'"
    with closing(system.connect("orders_db")) as blocker, blocker.cursor() as cursor:
        blocker.autocommit = False
        cursor.execute("SELECT FROM orders WHERE order_id = %s FOR UPDATE", (order_id,))
        pay = threading.Thread(target=pay_and_lose_the_answer, args=(system, buyer, order_id))
        pay.start()
        system.wait_until("the charge is on the ledger", lambda: system.rows("users_db", charged, buyer.user_id))
        system.stack.kill("orchestrator-service")
        blocker.rollback()
    system.stack.start("orchestrator-service")
    (saga,) = system.wait_until(
        "recovery has ended it", lambda: system.rows("sagas_db", ended, order_id), ENDED_SECONDS
    )
    pay.join()
    assert saga["status"] == "UNDONE"
    assert (buyer.balance(), system.order_status(order_id)) == (1000, "FAILED")
    assert system.seat_status(seat) == "HELD", "the seat is left to its TTL"
    system.assert_invariants()


def pay_and_lose_the_answer(system: TestSystem, buyer: Person, order_id: str) -> None:
    """A pay whose answer may never come, for the orchestrator dies under it; the gateway says so, or nobody does."""
    try:
        assert buyer.pay(order_id).status >= 500
    except urllib3.exceptions.HTTPError:
        assert system.stack.state("api-gateway") == "running"


@pytest.mark.parametrize("name", ["order-service", "inventory-service", "user-service", "event-service"])
def test_a_killed_service_is_missed_only_while_it_is_away(system: TestSystem, name: str) -> None:
    with traffic(system) as statuses:
        system.wait_until("people are buying", lambda: statuses.count(200) > BUYERS)
        system.stack.kill(name)
        system.stack.start(name)
        system.wait_until("a purchase goes through", lambda: can_buy(system), RECOVERED_SECONDS)
    assert set(statuses) <= {200, 500, 503, 409}, statuses
    system.assert_invariants()


def is_unready(system: TestSystem, service: str) -> bool:
    """Whether a service says that it is not ready."""
    return system.health(service).status == 503


def test_a_service_without_its_database_is_not_ready_and_yet_alive(system: TestSystem) -> None:
    system.stack.stop("postgres")
    try:
        for service in SERVICES:
            system.wait_until(f"{service} says so", partial(is_unready, system, service))
            live = system.visitor(system.stack.url(service)).get("/health/live")
            assert live.status == 200
    finally:
        system.stack.start("postgres")
    system.wait_until("every service is well", system.is_healthy, RECOVERED_SECONDS)
