"""A hold ends with its time, whatever becomes of the messages that say so (issue 3)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

import pytest

from tests.support import queue_admin
from tests.support.concurrency import outcomes, run_concurrently
from tests.support.people import Person
from tests.support.system import SERVICES, TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants", "short_holds")]

TTL = 2
GRACE = 2  # seconds beyond the TTL within which the message releases the seat
SWEPT = 60  # seconds beyond the TTL within which the sweeper does
ORCHESTRATOR = "orchestrator-service"


@pytest.fixture(scope="module")
def short_holds(system: TestSystem) -> Iterator[None]:
    """An orchestrator that holds seats for two seconds.

    A queue lets its messages expire at its head only: the five-minute ones of other tests are taken out of the way.
    """
    system.stack.restart(ORCHESTRATOR, {"HOLD_TTL_SECONDS": str(TTL)})
    queue_admin.purge(system.stack, queue_admin.HOLD)
    yield
    system.stack.restart(ORCHESTRATOR, {})
    system.wait_until("every service is well", system.is_healthy)


def is_free(system: TestSystem, *seats: str) -> bool:
    """Whether all of them are AVAILABLE."""
    return all(system.seat_status(seat) == "AVAILABLE" for seat in seats)


def consumed(system: TestSystem) -> int:
    """How many wake-up messages were worked off so far."""
    return int(system.rows("seats_db", "SELECT count(*) AS n FROM release_messages")[0]["n"])


def consumer_state(system: TestSystem) -> tuple[str, int]:
    """What Inventory says of its consumer: what it does, and how many messages are parked."""
    shown = system.visitor(system.stack.url("inventory-service")).get("/health").envelope
    return shown["consumer"], shown["parked_messages"] or 0


@contextmanager
def without(system: TestSystem, name: str) -> Iterator[None]:
    """Within, a process is away: stopped in good order, then started again."""
    system.stack.stop(name)
    try:
        yield
    finally:
        system.stack.start(name)
        system.wait_until("every service is well", system.is_healthy, 30)


@pytest.mark.claim(
    "layers/rabbitmq-releases-holds",
    "protocols/hold-release-is-asynchronous",
    "hold/lasts-until-expiry",
    "hold/message-is-dead-lettered",
    "hold/consumer-releases-seat",
    "hold/pending-order-fails",
    "queue/message-path",
)
def test_an_abandoned_hold_is_released_by_its_dead_lettered_message_within_ttl_and_two_seconds(
    system: TestSystem,
) -> None:
    buyer = system.person()
    seat, order_id = system.hold_seat(buyer)
    held = time.monotonic()
    system.wait_until("the seat is free", lambda: is_free(system, seat), TTL + GRACE)
    assert time.monotonic() - held > TTL - 0.5
    system.wait_until("the order has failed", lambda: system.order_status(order_id) == "FAILED", GRACE + 1)
    released = system.log_lines("inventory-service", seat)
    lines = [line for line in released if "Auto-released" in line["message"]]
    assert [line["level"] for line in lines] == ["WARNING"]
    assert "(swept)" not in lines[0]["message"], "it was the message's doing"
    assert outcomes([buyer.pay(order_id)]) == {"409 ORDER_FAILED": 1}
    assert buyer.balance() == 1000
    system.buy_seat(system.person(), seat)


@pytest.mark.claim(
    "correlation/http-header", "correlation/grpc-metadata", "correlation/one-id-everywhere", "queue/message-path"
)
def test_one_correlation_id_is_in_every_log_from_the_gateway_to_the_consumers_line(system: TestSystem) -> None:
    buyer, seat, correlation_id = system.person(), system.seat(), str(uuid4())
    buyer.reserve(seat, **{"X-Correlation-ID": correlation_id}).must(200)
    system.wait_until("the seat is free", lambda: is_free(system, seat), TTL + SWEPT)
    for service in ("api-gateway", ORCHESTRATOR, "user-service", "order-service", "inventory-service"):
        assert system.log_lines(service, correlation_id), f"{service} does not know the id"
    order_lines = partial(system.log_lines, "order-service", correlation_id)
    by_message = [line["message"] for line in system.log_lines("inventory-service", correlation_id)]
    assert any("gRPC ReserveSeat" in message for message in by_message), "through gRPC"
    assert any("Auto-released seat" in message for message in by_message), "through AMQP"
    system.wait_until("Order is told, under it", lambda: any("/expire" in line["message"] for line in order_lines()))


@pytest.mark.claim("reserve/releases-when-publish-fails", "queue/releases-despite-crash")
def test_while_the_broker_is_away_a_reserve_fails_with_nothing_held_and_a_hold_is_swept(
    system: TestSystem,
) -> None:
    buyer = system.person()
    seat, order_id = system.hold_seat(buyer)
    with without(system, "rabbitmq"):
        lost, wanted = system.person(), system.seat()
        answer = lost.reserve(wanted)
        assert outcomes([answer]) == {"503 SERVICE_UNAVAILABLE": 1}
        assert is_free(system, wanted)
        system.wait_until("the sweeper frees the seat", lambda: is_free(system, seat), TTL + SWEPT)
        system.wait_until("the order has failed", lambda: system.order_status(order_id) == "FAILED", SWEPT)
        assert system.is_healthy(["inventory-service"]), "seats are still sold; the sweeper releases them"
    orders = system.rows("orders_db", "SELECT status FROM orders WHERE user_id = %s", lost.user_id)
    assert [order["status"] for order in orders] in ([], ["FAILED"])
    system.wait_until("the same seat is reserved", lambda: lost.reserve(wanted).status == 200)


@pytest.mark.claim("consumer/acknowledges-last", "consumer/redelivers-failures")
def test_messages_that_wait_while_the_database_is_away_are_neither_parked_nor_lost(system: TestSystem) -> None:
    before, parked = consumed(system), queue_admin.depth(system.stack, queue_admin.PARKING)
    held = [system.hold_seat(system.person()) for _ in range(6)]
    system.stack.kill("postgres")
    try:
        system.wait_until("the consumer pauses", lambda: consumer_state(system)[0] == "paused")
        system.wait_until("all messages wait", lambda: queue_admin.depth(system.stack, queue_admin.HOLD) == 0)
    finally:
        system.stack.start("postgres")
    system.wait_until("every service is well", system.is_healthy, 30)
    system.wait_until("every seat is free", lambda: is_free(system, *(seat for seat, _ in held)), 30)
    system.wait_until("every message was worked off", lambda: consumed(system) >= before + len(held), 30)
    assert queue_admin.depth(system.stack, queue_admin.PARKING) == parked
    assert queue_admin.depth(system.stack, queue_admin.RELEASE) == 0
    failed = [partial(system.order_status, order_id) for _, order_id in held]
    system.wait_until("every order has failed", lambda: {status() for status in failed} == {"FAILED"}, 30)


@pytest.mark.parametrize(
    ("body", "message_id"),
    [(b"", "m"), (b"nonsense", "m"), (b"{}", "m"), (b'{"seat_id": 17}', "m"), (b"\xff", "m"), (b"{}", None)],
)
def test_a_malformed_message_is_parked_at_once_and_shown(
    system: TestSystem, body: bytes, message_id: str | None
) -> None:
    before = queue_admin.depth(system.stack, queue_admin.PARKING)
    queue_admin.send(system.stack, body, message_id and f"{message_id}-{uuid4()}")
    system.wait_until("it is parked", lambda: queue_admin.depth(system.stack, queue_admin.PARKING) == before + 1, 3)
    system.wait_until("it is shown", lambda: consumer_state(system)[1] == before + 1, 6)
    assert system.is_healthy(["inventory-service"])
    metrics = system.visitor(system.stack.url("inventory-service")).get("/metrics").body
    assert b"parked" in metrics
    queue_admin.purge(system.stack, queue_admin.PARKING)


@pytest.mark.claim("hold/consumer-releases-seat")
def test_a_message_for_an_older_hold_touches_nobody_elses(system: TestSystem) -> None:
    first, second = system.person(), system.person()
    seat, old_order = system.hold_seat(first)
    system.wait_until("the first hold is over", lambda: is_free(system, seat), TTL + SWEPT)
    _, new_order = system.hold_seat(second, seat)
    before = consumed(system)
    for _ in range(3):
        queue_admin.release(system.stack, seat, old_order)
    system.wait_until("all three were worked off", lambda: consumed(system) >= before + 3, 5)
    assert str(system.seat_row(seat)["hold_id"]) == new_order
    assert second.pay(new_order).must(200)["status"] == "CONFIRMED"


@pytest.mark.claim("lock/late-message-does-nothing")
def test_an_early_message_waits_and_a_late_or_repeated_one_leaves_the_sale(system: TestSystem) -> None:
    buyer = system.person()
    seat, order_id = system.hold_seat(buyer)
    message_id = str(uuid4())
    for _ in range(2):
        queue_admin.release(system.stack, seat, order_id, message_id)
    system.wait_until("both have been looked at", lambda: queue_admin.depth(system.stack, queue_admin.RELEASE) == 0)
    assert system.seat_status(seat) == "HELD"
    buyer.pay(order_id).must(200)
    recorded = "SELECT outcome FROM release_messages WHERE message_id = %s"
    system.wait_until("they came again, too late", lambda: system.rows("seats_db", recorded, message_id), TTL + 8)
    assert [row["outcome"] for row in system.rows("seats_db", recorded, message_id)] == ["STALE"]
    queue_admin.release(system.stack, seat, order_id)
    system.wait_until("the last is worked off", lambda: queue_admin.depth(system.stack, queue_admin.RELEASE) == 0)
    assert system.seat_status(seat) == "SOLD"


def test_an_expired_hold_is_taken_over_and_each_ends_with_the_seat_or_the_money(system: TestSystem) -> None:
    first, second = system.person(), system.person()
    seat, old_order = system.hold_seat(first)
    with system.clock("seats_db", TTL + 1):
        _, new_order = system.hold_seat(second, seat)
    assert first.pay(old_order).status in (409, 410)
    assert second.pay(new_order).must(200)["status"] == "CONFIRMED"
    assert str(system.seat_row(seat)["owner_user_id"]) == second.user_id
    assert first.balance() == 1000


def test_a_pay_in_flight_while_its_hold_is_taken_over_ends_one_way(system: TestSystem) -> None:
    for ahead in (0, TTL + 1):
        first, second = system.person(), system.person()
        seat, order_id = system.hold_seat(first)
        with system.clock("seats_db", ahead):
            paid, taken = run_concurrently([partial(first.pay, order_id), partial(second.reserve, seat)])
        assert (paid.status == 200) != (taken.status == 200), (paid, taken)
        assert (first.balance() == 1000) == (paid.status != 200)
        assert owner_or_holder(system, seat) == (first if paid.status == 200 else second).user_id


def owner_or_holder(system: TestSystem, seat: str) -> str:
    """Whose the seat is."""
    row = system.seat_row(seat)
    return str(row["owner_user_id"] or row["held_by_user_id"])


def test_paying_after_the_time_is_up_charges_nothing(system: TestSystem) -> None:
    buyer: Person = system.person()
    _, order_id = system.hold_seat(buyer)
    with system.clock("orders_db", TTL + 1):
        assert outcomes([buyer.pay(order_id)]) == {"410 HOLD_EXPIRED": 1}
    assert buyer.balance() == 1000


def test_every_service_is_well_after_all_this(system: TestSystem) -> None:
    assert system.is_healthy(SERVICES)
    assert consumer_state(system) == ("consuming", 0)
