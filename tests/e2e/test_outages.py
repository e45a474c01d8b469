"""PostgreSQL, RabbitMQ or a service stops under load: every service recovers without a restart by an operator."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support import queue_admin
from tests.support.concurrency import run_concurrently
from tests.support.system import SERVICES, TestSystem
from tests.support.traffic import BUYERS, Timed, block_pay_after_charge, buy, freeze, keep_buying

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

RECOVERED_SECONDS = 30.0
ONE_TRY = 2.0  # seconds, the timeout of a call
AT_ONCE = 1.0  # with a probe of half a second, on a busy machine
FIRST = 3  # requests after which a dead service is known to be away
ENDED_SECONDS = 5.0  # after the start of an orchestrator, while all participants run


def read_pids(system: TestSystem) -> dict[str, int]:
    """Return the process id of each service."""
    return {service: system.stack.run_dir.read_record(service).pid for service in SERVICES}


def can_buy(system: TestSystem) -> bool:
    """Return whether a new buyer can buy a seat."""
    return buy(system.person(), system.seat()) == [200, 200]


def bounce(system: TestSystem, name: str, how: str) -> None:
    """Stop or kill a process, then start it again."""
    (system.stack.kill if how == "kill" else system.stack.stop)(name)
    system.stack.start(name)


# test_expiry stops RabbitMQ cleanly, because that takes long.
@pytest.mark.parametrize(("name", "how"), [("postgres", "stop"), ("postgres", "kill"), ("rabbitmq", "kill")])
def test_every_service_recovers_and_keeps_the_invariants(system: TestSystem, name: str, how: str) -> None:
    before = read_pids(system)
    with queue_admin.message_survives(system.stack), keep_buying(system) as statuses:
        system.wait_until("people are buying", lambda: statuses.count(200) > BUYERS)
        bounce(system, name, how)
        system.wait_until("every service is healthy", system.is_healthy, RECOVERED_SECONDS)
        system.wait_until("a new buyer buys a seat", partial(can_buy, system), RECOVERED_SECONDS)
        bought = len(statuses)
        system.wait_until("people buy again", lambda: statuses[bought:].count(200) > BUYERS)
    assert read_pids(system) == before, "no service was restarted"
    assert set(statuses) <= {200, 500, 503, 409}, "each call gets an answer"
    system.assert_invariants()


@pytest.mark.claim("layers/orchestrator-coordinates-flows", "pay/refunds-when-seat-refused")
def test_a_pay_killed_after_the_charge_is_undone(system: TestSystem) -> None:
    """The restarted orchestrator compensates the saga within five seconds: refunded, order failed, seat still held."""
    buyer = system.person("1000.00")
    seat, order_id = system.hold_seat(buyer)
    ended = "SELECT status::text FROM sagas WHERE flow = 'pay' AND subject = %s AND status <> 'RUNNING'"
    with block_pay_after_charge(system, buyer, order_id) as paying:
        system.stack.kill("orchestrator-service")
    system.stack.start("orchestrator-service")
    (saga,) = system.wait_until(
        "recovery has ended it", lambda: system.rows("sagas_db", ended, order_id), ENDED_SECONDS
    )
    paying.join()
    assert saga["status"] == "UNDONE"
    assert (buyer.balance(), system.order_status(order_id)) == (1000, "FAILED")
    assert system.seat_status(seat) == "HELD", "the hold ends with its TTL"
    system.assert_invariants()


@pytest.mark.parametrize("name", ["order-service", "inventory-service", "user-service", "event-service"])
def test_a_killed_service_fails_requests_only_while_it_is_down(system: TestSystem, name: str) -> None:
    with keep_buying(system) as statuses:
        system.wait_until("people are buying", lambda: statuses.count(200) > BUYERS)
        system.stack.kill(name)
        system.stack.start(name)
        system.wait_until("a new buyer buys a seat", partial(can_buy, system), RECOVERED_SECONDS)
    assert set(statuses) <= {200, 500, 503, 409}, statuses
    system.assert_invariants()


def test_without_inventory_a_reserve_is_refused_at_once(system: TestSystem) -> None:
    buyer, timed = system.person(), Timed()
    system.stack.kill("inventory-service")
    try:
        for _ in range(FIRST + 10):
            assert timed(buyer.reserve, system.seat()).status == 503
        assert max(timed.seconds[:FIRST]) < ONE_TRY, timed.seconds
        assert max(timed.seconds[FIRST:]) < AT_ONCE, timed.seconds
    finally:
        system.stack.start("inventory-service")
    system.wait_until("the buyer reserves again", lambda: buyer.reserve(system.seat()).status == 200, ONE_TRY)


def test_a_hung_inventory_costs_the_first_requests_one_try(system: TestSystem) -> None:
    """They wait for one timeout and a short probe each. The others are refused at once, and so are scans and reads."""
    buyers, late, timed = system.people(4), system.person(), Timed()
    with freeze(system, "inventory-service"):
        answers = run_concurrently([partial(timed, buyer.reserve, system.seat()) for buyer in buyers])
        assert {answer.status for answer in answers} == {503}
        assert max(timed.seconds) < ONE_TRY * 2, timed.seconds
        timed.seconds.clear()
        for _ in range(5):
            assert timed(late.reserve, system.seat()).status == 503
            assert timed(late.get, "/api/tickets").status == 503
        assert max(timed.seconds) < AT_ONCE, timed.seconds
    system.wait_until("a buyer reserves again", lambda: late.reserve(system.seat()).status == 200, ONE_TRY)


def is_unready(system: TestSystem, service: str) -> bool:
    """Return whether a service reports that it is not ready."""
    return system.health(service).status == 503


def test_a_service_without_its_database_is_alive_but_not_ready(system: TestSystem) -> None:
    system.stack.stop("postgres")
    try:
        for service in SERVICES:
            system.wait_until(f"{service} is not ready", partial(is_unready, system, service))
            live = system.visitor(system.stack.url(service)).get("/health/live")
            assert live.status == 200
    finally:
        system.stack.start("postgres")
    system.wait_until("every service is healthy", system.is_healthy, RECOVERED_SECONDS)
