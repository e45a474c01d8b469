"""A hold ends when its time is up, even if its message is lost, late or malformed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

import pytest

from tests.support import queue_admin
from tests.support.concurrency import outcomes
from tests.support.people import Person
from tests.support.system import SERVICES, TestSystem
from tests.support.traffic import Timed

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants", "short_holds")]

TTL = 2
GRACE = 2  # seconds after the TTL, in which the message releases the seat
SWEPT = 60  # seconds after the TTL, in which the sweeper releases it
ORCHESTRATOR = "orchestrator-service"
CROWD = 96
QUICK = 4.0  # seconds, on a busy machine. Without a bulkhead, a pay takes 8 s and a scan 12 s


@pytest.fixture(scope="module")
def short_holds(system: TestSystem) -> Iterator[None]:
    """Restart the orchestrator with a hold time of two seconds.

    RabbitMQ expires messages only at the head of a queue, so the five-minute messages of other tests are purged.
    """
    system.stack.restart(ORCHESTRATOR, {"HOLD_TTL_SECONDS": str(TTL)})
    queue_admin.purge(system.stack, queue_admin.HOLD)
    yield
    system.stack.restart(ORCHESTRATOR, {})
    system.wait_until("every service is healthy", system.is_healthy)


def is_free(system: TestSystem, *seats: str) -> bool:
    """Return whether all seats are AVAILABLE."""
    return all(system.seat_status(seat) == "AVAILABLE" for seat in seats)


def count_consumed(system: TestSystem) -> int:
    """Count the release messages that Inventory has processed."""
    return int(system.rows("seats_db", "SELECT count(*) AS n FROM release_messages")[0]["n"])


def read_consumer_state(system: TestSystem) -> tuple[str, int]:
    """Read the state of the consumer and the number of parked messages from /health."""
    health = system.visitor(system.stack.url("inventory-service")).get("/health").envelope
    return health["consumer"], health["parked_messages"] or 0


@contextmanager
def stop_during(system: TestSystem, name: str) -> Iterator[None]:
    """Stop a process cleanly during the block, then start it again."""
    system.stack.stop(name)
    try:
        yield
    finally:
        system.stack.start(name)
        system.wait_until("every service is healthy", system.is_healthy, 30)


@pytest.mark.claim(
    "layers/rabbitmq-releases-holds",
    "protocols/hold-release-is-asynchronous",
    "hold/lasts-until-expiry",
    "hold/message-is-dead-lettered",
    "hold/consumer-releases-seat",
    "hold/pending-order-fails",
    "queue/message-path",
)
def test_an_abandoned_hold_is_released_by_its_message(system: TestSystem) -> None:
    """The dead-lettered message releases the seat within two seconds after the TTL, and the order fails."""
    buyer = system.person()
    seat, order_id = system.hold_seat(buyer)
    held = time.monotonic()
    system.wait_until("the seat is free", lambda: is_free(system, seat), TTL + GRACE)
    assert time.monotonic() - held > TTL - 0.5
    system.wait_until("the order has failed", lambda: system.order_status(order_id) == "FAILED", GRACE + 1)
    released = system.log_lines("inventory-service", seat)
    lines = [line for line in released if "Auto-released" in line["message"]]
    assert [line["level"] for line in lines] == ["WARNING"]
    assert "(swept)" not in lines[0]["message"], "the message released it"
    assert outcomes([buyer.pay(order_id)]) == {"409 ORDER_FAILED": 1}
    assert buyer.balance() == 1000
    system.buy_seat(system.person(), seat)


@pytest.mark.claim(
    "correlation/http-header", "correlation/grpc-metadata", "correlation/one-id-everywhere", "queue/message-path"
)
def test_one_correlation_id_is_in_every_log(system: TestSystem) -> None:
    """The id of a reserve goes through HTTP, gRPC and AMQP, up to the log line of the consumer."""
    buyer, seat, correlation_id = system.person(), system.seat(), str(uuid4())
    buyer.reserve(seat, **{"X-Correlation-ID": correlation_id}).must(200)
    system.wait_until("the seat is free", lambda: is_free(system, seat), TTL + SWEPT)
    for service in ("api-gateway", ORCHESTRATOR, "user-service", "order-service", "inventory-service"):
        assert system.log_lines(service, correlation_id), f"{service} did not log the id"
    order_lines = partial(system.log_lines, "order-service", correlation_id)
    by_message = [line["message"] for line in system.log_lines("inventory-service", correlation_id)]
    assert any("gRPC ReserveSeat" in message for message in by_message), "through gRPC"
    assert any("Auto-released seat" in message for message in by_message), "through AMQP"
    system.wait_until("Order gets it, too", lambda: any("/expire" in line["message"] for line in order_lines()))


def assert_crowd_starves_nobody(system: TestSystem) -> None:
    """Without RabbitMQ, let a crowd reserve. Requests that do not need it are as quick as before."""
    guest, staff, is_over = system.person(), system.staff(), threading.Event()
    qr = guest.get(f"/api/tickets/{system.insert_ticket(guest)}/qr").must(200)["qr_payload"]
    live = system.visitor(system.stack.url(ORCHESTRATOR))
    calls = {
        "pay": partial(guest.pay, str(uuid4())),  # reads the order first
        "scan": partial(staff.scan, qr, "HALL-A"),  # refused, since the ticket is for another hall
        "liveness": partial(live.get, "/health/live"),
    }

    def reserve(buyer: Person) -> set[int]:
        statuses, seat = set[int](), system.seat()
        while not is_over.is_set():
            statuses.add(buyer.reserve(seat).status)
            is_over.wait(0.2)  # a part of `Retry-After`
        return statuses

    with ThreadPoolExecutor(CROWD) as pool:
        crowd = [pool.submit(reserve, buyer) for buyer in system.people(CROWD)]
        timed = {name: Timed() for name in calls}
        for _ in range(5):
            statuses = {name: timed[name](call).status for name, call in calls.items()}
            assert statuses == {"pay": 404, "scan": 200, "liveness": 200}
        is_over.set()
    assert {status for each in crowd for status in each.result()} == {503}
    slowest = {name: max(each.seconds) for name, each in timed.items()}
    assert max(slowest.values()) < QUICK, slowest


@pytest.mark.claim("reserve/releases-when-publish-fails", "queue/releases-despite-crash")
def test_without_the_broker_a_reserve_fails_and_a_hold_is_swept(system: TestSystem) -> None:
    """A reserve cannot publish its message, so it holds nothing. The sweeper releases the hold made before."""
    buyer = system.person()
    seat, order_id = system.hold_seat(buyer)
    with stop_during(system, "rabbitmq"):
        lost, wanted = system.person(), system.seat()
        answer = lost.reserve(wanted)
        assert outcomes([answer]) == {"503 SERVICE_UNAVAILABLE": 1}
        assert is_free(system, wanted)
        assert_crowd_starves_nobody(system)
        system.wait_until("the sweeper frees the seat", lambda: is_free(system, seat), TTL + SWEPT)
        system.wait_until("the order has failed", lambda: system.order_status(order_id) == "FAILED", SWEPT)
        assert system.is_healthy(["inventory-service"]), (
            "Inventory still sells seats, because the sweeper releases holds"
        )
    orders = system.rows("orders_db", "SELECT status FROM orders WHERE user_id = %s", lost.user_id)
    assert [order["status"] for order in orders] in ([], ["FAILED"])
    system.wait_until("the same seat is reserved", lambda: lost.reserve(wanted).status == 200)


@pytest.mark.claim("consumer/acknowledges-last", "consumer/redelivers-failures")
def test_without_the_database_messages_wait_and_none_is_lost(system: TestSystem) -> None:
    """The consumer pauses without parking a message, and releases every seat when the database is back."""
    before, parked = count_consumed(system), queue_admin.depth(system.stack, queue_admin.PARKING)
    held = [system.hold_seat(system.person()) for _ in range(6)]
    system.stack.kill("postgres")
    try:
        system.wait_until("the consumer pauses", lambda: read_consumer_state(system)[0] == "paused")
        system.wait_until("all messages wait", lambda: queue_admin.depth(system.stack, queue_admin.HOLD) == 0)
    finally:
        system.stack.start("postgres")
    system.wait_until("every service is healthy", system.is_healthy, 30)
    system.wait_until("every seat is free", lambda: is_free(system, *(seat for seat, _ in held)), 30)
    system.wait_until("every message was processed", lambda: count_consumed(system) >= before + len(held), 30)
    assert queue_admin.depth(system.stack, queue_admin.PARKING) == parked
    assert queue_admin.depth(system.stack, queue_admin.RELEASE) == 0
    failed = [partial(system.order_status, order_id) for _, order_id in held]
    system.wait_until("every order has failed", lambda: {status() for status in failed} == {"FAILED"}, 30)


def test_a_malformed_message_is_parked_and_shown(system: TestSystem) -> None:
    before = queue_admin.depth(system.stack, queue_admin.PARKING)
    queue_admin.send(system.stack, b"not JSON", str(uuid4()))
    system.wait_until(
        "the message is parked", lambda: queue_admin.depth(system.stack, queue_admin.PARKING) == before + 1, 3
    )
    system.wait_until("/health shows it", lambda: read_consumer_state(system)[1] == before + 1, 6)
    assert system.is_healthy(["inventory-service"])
    metrics = system.visitor(system.stack.url("inventory-service")).get("/metrics").body
    assert b"parked" in metrics
    queue_admin.purge(system.stack, queue_admin.PARKING)


def test_an_expired_hold_goes_to_the_next_buyer(system: TestSystem) -> None:
    """The next buyer gets the seat, and the first buyer keeps the credits."""
    first, second = system.person(), system.person()
    seat, old_order = system.hold_seat(first)
    with system.clock("seats_db", TTL + 1):
        _, new_order = system.hold_seat(second, seat)
    assert first.pay(old_order).status in (409, 410)
    assert second.pay(new_order).must(200)["status"] == "CONFIRMED"
    assert str(system.seat_row(seat)["owner_user_id"]) == second.user_id
    assert first.balance() == 1000


def test_a_pay_after_the_hold_expired_charges_nothing(system: TestSystem) -> None:
    buyer: Person = system.person()
    _, order_id = system.hold_seat(buyer)
    with system.clock("orders_db", TTL + 1), system.clock("sagas_db", TTL + 1):
        assert outcomes([buyer.pay(order_id)]) == {"410 HOLD_EXPIRED": 1}
    assert buyer.balance() == 1000


def test_every_service_is_healthy_after_these_tests(system: TestSystem) -> None:
    assert system.is_healthy(SERVICES)
    system.wait_until("no message is parked", lambda: read_consumer_state(system) == ("consuming", 0), 6)
