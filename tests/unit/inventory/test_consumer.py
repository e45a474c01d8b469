"""The consumer of seat.release.queue: real broker, real database, the real hold queue in front of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from services.chassis import json_codec
from services.chassis.broker import Publisher
from services.chassis.db import LockNotGranted
from services.chassis.errors import Unknown
from services.inventory import consumer as module
from services.inventory import queue_consumer as idle
from services.inventory.consumer import DELAY_QUEUE, PARKING_QUEUE, RELEASE_QUEUE, SeatReleases
from services.inventory.queue_consumer import Consumer, Message
from services.inventory.store import holds
from tests.support.brokers import Broker
from tests.support.databases import Databases
from tests.support.waiting import wait_until
from tests.unit.inventory.inventory_service import InventoryService, an_id, refused

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def inventory(databases: Databases) -> Iterator[InventoryService]:
    service = InventoryService(databases)
    yield service
    service.close()


class Told:
    """Stands where Order's notices go."""

    def __init__(self) -> None:
        self.orders: list[str] = []

    def tell(self, order_id: UUID) -> None:
        self.orders.append(str(order_id))


class Flow:
    """A consumer at work on the real queues."""

    def __init__(self, broker: Broker, inventory: InventoryService) -> None:
        self.told = Told()
        self.database_up = True
        self.publisher = Publisher(broker.settings, "test")
        self.releases = SeatReleases(inventory.db, self.publisher, self.told)
        self.consumer = self.another(broker)
        self._all = [self.consumer]

    def another(self, broker: Broker, handle: Callable[[Message], None] | None = None) -> Consumer:
        return Consumer(
            broker.settings,
            "test-consumer",
            RELEASE_QUEUE,
            handle or self.releases.handle,
            may_consume=lambda: self.database_up,
            counted_queue=PARKING_QUEUE,
        )

    def start(self) -> None:
        self.publisher.start()
        self.consumer.start()
        wait_until(lambda: self.publisher.is_ready() and self.consumer.state == "consuming")

    def stop(self) -> None:
        self.consumer.stop()
        self.publisher.stop()

    def wake_up(self, seat_id: str, hold_id: str, message_id: str | None = None, after_ms: int | None = None) -> str:
        """Publish a hold's message; straight to the release queue, or through the hold queue `after_ms`."""
        body = json_codec.encode({"seat_id": seat_id, "user_id": an_id(), "order_id": hold_id, "reserved_at": "now"})
        message_id = message_id or an_id()
        where = ("seat.release.exchange", "seat.release") if after_ms is None else ("seat.hold.exchange", "seat.hold")
        self.publisher.publish(*where, body, message_id=message_id, expiration_ms=after_ms)
        return message_id


@pytest.fixture
def flow(broker: Broker, inventory: InventoryService, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flow]:
    monkeypatch.setattr(idle, "_IDLE_SECONDS", 0.02)  # stopping waits for it
    broker.empty()
    flow = Flow(broker, inventory)
    flow.start()
    yield flow
    flow.stop()
    broker.empty()


def consumed(inventory: InventoryService, message_id: str) -> str | None:
    sql = "SELECT outcome FROM release_messages WHERE message_id = %(message_id)s"
    found = inventory.row(sql, message_id=message_id)
    return found["outcome"] if found else None


# ── messages


@pytest.mark.claim(
    "protocols/hold-release-is-asynchronous",
    "hold/message-is-dead-lettered",
    "hold/consumer-releases-seat",
    "queue/release-queue",
    "consumer/releases-and-notifies",
    "consumer/acknowledges-last",
)
def test_expired_hold_is_released_by_its_dead_lettered_message_and_order_is_told_once(flow, inventory, caplog):
    seat_id, hold_id, user_id = inventory.held_seat(ttl=1)
    message_id = flow.wake_up(seat_id, hold_id, after_ms=1500)
    wait_until(lambda: inventory.seat(seat_id).status == "AVAILABLE")
    wait_until(lambda: consumed(inventory, message_id) == "RELEASED")
    wait_until(lambda: flow.told.orders == [hold_id])
    assert any(r.levelname == "WARNING" and f"Auto-released seat {seat_id}" in r.getMessage() for r in caplog.records)
    with refused("STEP_VOIDED"):
        inventory.reserve(seat_id, user_id, hold_id)


def test_same_message_twice_releases_once_and_tells_order_once(flow, inventory):
    seat_id, hold_id, _ = inventory.held_seat()
    inventory.expire(seat_id)
    message_id = flow.wake_up(seat_id, hold_id)
    wait_until(lambda: consumed(inventory, message_id))
    new_hold = inventory.reserve(seat_id).hold_id
    flow.wake_up(seat_id, hold_id, message_id)
    _worked_off(flow, inventory)
    assert inventory.seat(seat_id).hold_id == new_hold
    assert flow.told.orders.count(hold_id) == 1


def test_message_of_an_older_hold_leaves_the_one_that_took_over(flow, inventory):
    seat_id, old_hold, _ = inventory.held_seat()
    inventory.expire(seat_id)
    new_hold = inventory.reserve(seat_id).hold_id
    inventory.expire(seat_id)  # expired too, but not this message's
    message_id = flow.wake_up(seat_id, old_hold)
    wait_until(lambda: consumed(inventory, message_id) == "STALE")
    assert inventory.seat(seat_id).hold_id == new_hold


@pytest.mark.claim("lock/late-message-does-nothing")
def test_late_message_leaves_the_sale(flow, inventory):
    seat_id, order_id, owner = inventory.sold_seat()
    message_id = flow.wake_up(seat_id, order_id)
    wait_until(lambda: consumed(inventory, message_id) == "STALE")
    assert inventory.seat(seat_id).owner_user_id == owner
    assert flow.told.orders == []


def test_message_for_a_seat_that_is_not_there_is_worked_off(flow, inventory):
    message_id = flow.wake_up(an_id(), an_id())
    wait_until(lambda: consumed(inventory, message_id) == "STALE")


def test_early_message_waits_in_the_delay_queue_and_releases_in_time(flow, inventory):
    seat_id, hold_id, _ = inventory.held_seat(ttl=2)
    message_id = flow.wake_up(seat_id, hold_id)
    _worked_off(flow, inventory)
    assert (inventory.seat(seat_id).hold_id, consumed(inventory, message_id)) == (hold_id, None)
    wait_until(lambda: consumed(inventory, message_id) == "RELEASED")
    assert inventory.seat(seat_id).status == "AVAILABLE"


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"[]", b"{}", b'{"seat_id": "x", "order_id": "y"}', b"\xff", b"null"],
)
def test_malformed_message_is_parked_at_once_as_it_came(flow, broker, body):
    message_id = an_id()
    flow.publisher.publish("seat.release.exchange", "seat.release", body, message_id=message_id)
    properties, parked = broker.take(PARKING_QUEUE)
    assert (properties.message_id, parked) == (message_id, body)


def test_message_without_an_id_is_parked(broker, inventory):
    parked: list[Any] = []

    class Parks:
        def publish(self, exchange: str, queue: str, body: bytes, **_: Any) -> None:
            parked.append(queue)

    releases = SeatReleases(inventory.db, Parks(), Told())  # type: ignore[arg-type]
    releases.handle(Message(b"{}", None, {}))
    assert parked == [PARKING_QUEUE]


def test_no_message_waits_so_long_that_it_holds_up_those_behind_it(inventory):
    waits: list[int] = []

    class Delays:
        def publish(self, exchange: str, queue: str, body: bytes, **fields: Any) -> None:
            waits.append(fields["expiration_ms"])

    seat_id, hold_id, _ = inventory.held_seat(ttl=300)
    body = json_codec.encode({"seat_id": seat_id, "order_id": hold_id})
    SeatReleases(inventory.db, Delays(), Told()).handle(Message(body, an_id(), {}))  # type: ignore[arg-type]
    assert waits == [module.MAX_DELAY_MS]


# ── failures


@pytest.mark.claim("consumer/redelivers-failures")
def test_failure_that_passes_is_tried_again_and_then_released(flow, inventory):
    seat_id, hold_id, _ = inventory.held_seat()
    inventory.expire(seat_id)
    with inventory.row_locked(seat_id):
        message_id = flow.wake_up(seat_id, hold_id)
        time_of_lock_wait = time.monotonic() + 1.2
        wait_until(lambda: time.monotonic() > time_of_lock_wait)  # longer than lock_timeout: one attempt has failed
    wait_until(lambda: consumed(inventory, message_id) == "RELEASED")


def test_failure_that_stays_is_parked_after_five_attempts(flow, broker, inventory, monkeypatch):
    monkeypatch.setattr(module, "FIRST_DELAY_MS", 10)
    attempts: list[str] = []

    def failing(*args: Any) -> Any:
        attempts.append(args[3])
        raise LockNotGranted("the row is locked")

    monkeypatch.setattr(holds, "release_expired", failing)
    message_id = flow.wake_up(an_id(), an_id())
    properties, _ = broker.take(PARKING_QUEUE, within=10)
    assert properties.message_id == message_id
    assert attempts == [message_id] * 6  # the first time and five more
    assert broker.count(DELAY_QUEUE) == broker.count(RELEASE_QUEUE) == 0


def test_bug_parks_its_message_in_the_end_instead_of_going_round_for_ever(flow, broker, monkeypatch):
    monkeypatch.setattr(module, "FIRST_DELAY_MS", 10)
    monkeypatch.setattr(holds, "release_expired", lambda *_: 1 / 0)
    message_id = flow.wake_up(an_id(), an_id())
    properties, _ = broker.take(PARKING_QUEUE, within=10)
    assert properties.message_id == message_id


@pytest.mark.claim("consumer/acknowledges-last", "consumer/redelivers-failures")
def test_consumer_pauses_while_the_database_is_down_and_loses_nothing(flow, broker, inventory, monkeypatch):
    down = _DatabaseDown(flow, inventory, monkeypatch)
    seat_id, hold_id, _ = inventory.held_seat()
    inventory.expire(seat_id)
    message_ids = [flow.wake_up(seat_id, hold_id), flow.wake_up(an_id(), an_id()), flow.wake_up(an_id(), an_id())]
    wait_until(lambda: flow.consumer.state == "paused")
    wait_until(lambda: broker.count(RELEASE_QUEUE) == 3)  # back where they were, and offered to nobody
    tried = down.tried
    assert (broker.count(PARKING_QUEUE), broker.count(DELAY_QUEUE)) == (0, 0)
    down.is_over()
    wait_until(lambda: all(consumed(inventory, message_id) for message_id in message_ids))
    assert tried <= 2
    assert broker.count(PARKING_QUEUE) == 0
    assert inventory.seat(seat_id).status == "AVAILABLE"


class _DatabaseDown:
    def __init__(self, flow: Flow, inventory: InventoryService, monkeypatch: pytest.MonkeyPatch) -> None:
        self._flow = flow
        self.tried = 0
        self._context = monkeypatch.context()
        inner = self._context.__enter__()
        inner.setattr(holds, "release_expired", self._fail)
        inner.setattr(inventory.db, "is_ready", lambda: False)
        flow.database_up = False

    def _fail(self, *_: Any) -> Any:
        self.tried += 1
        raise Unknown("the database did not answer")

    def is_over(self) -> None:
        self._context.__exit__(None, None, None)
        self._flow.database_up = True


def test_message_stays_when_it_can_be_put_nowhere_else(flow, broker, inventory, monkeypatch):
    """Delay and parking are confirmed before the acknowledgement: with no word from them the message comes again."""
    refuse = [True]
    publish = flow.publisher.publish

    def unconfirmed(exchange: str, queue: str, body: bytes, **fields: Any) -> None:
        if refuse[0] and queue == PARKING_QUEUE:
            raise Unknown("RabbitMQ did not confirm within 2 s")
        publish(exchange, queue, body, **fields)

    monkeypatch.setattr(flow.publisher, "publish", unconfirmed)
    flow.publisher.publish("seat.release.exchange", "seat.release", b"bad", message_id="bad")
    wait_until(lambda: flow.consumer.state != "consuming")
    refuse[0] = False
    properties, _ = broker.take(PARKING_QUEUE, within=10)
    assert properties.message_id == "bad"


@pytest.mark.claim("reserve/releases-when-publish-fails")
def test_while_the_broker_is_away_publishing_is_unknown_at_once_and_both_ends_recover(flow, broker, inventory):
    seat_id, hold_id, _ = inventory.held_seat()
    inventory.expire(seat_id)
    broker.stop()
    try:
        wait_until(lambda: not flow.publisher.is_ready())
        started = time.monotonic()
        with pytest.raises(Unknown):
            flow.wake_up(seat_id, hold_id)
        assert time.monotonic() - started < 0.1
    finally:
        broker.start()
    wait_until(lambda: flow.publisher.is_ready() and flow.consumer.state == "consuming", seconds=30)
    message_id = flow.wake_up(seat_id, hold_id)
    wait_until(lambda: consumed(inventory, message_id) == "RELEASED")


@pytest.mark.claim("consumer/prefetch")
def test_a_consumer_has_32_messages_in_hand_and_no_more(flow, broker):
    flow.consumer.stop()
    go = threading.Event()
    slow = flow.another(broker, lambda _: go.wait(15))
    slow.start()
    try:
        wait_until(lambda: slow.state == "consuming")
        for _ in range(40):
            flow.wake_up(an_id(), an_id())
        wait_until(lambda: broker.count(RELEASE_QUEUE) == 40 - 32)
        go.set()
        wait_until(lambda: broker.count(RELEASE_QUEUE) == 0)
    finally:
        go.set()
        slow.stop()


def test_two_consumers_share_the_queue(flow, broker, inventory):
    other = flow.another(broker)
    other.start()
    try:
        wait_until(lambda: other.state == "consuming")
        message_ids = [flow.wake_up(an_id(), an_id()) for _ in range(40)]
        wait_until(lambda: all(consumed(inventory, message_id) for message_id in message_ids))
    finally:
        other.stop()


def test_parked_messages_are_counted(flow, broker):
    flow.publisher.publish("", PARKING_QUEUE, b"{}", message_id="m")
    wait_until(lambda: flow.consumer.counted == 1)


def _worked_off(flow: Flow, inventory: InventoryService) -> None:
    """Wait until the consumer has been through what is in the queue now."""
    last = flow.wake_up(an_id(), an_id())
    wait_until(lambda: consumed(inventory, last))
