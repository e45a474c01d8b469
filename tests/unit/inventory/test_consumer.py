"""The consumer of seat.release.queue with a real broker, a real database and the real hold queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from services.chassis import json_codec
from services.chassis.broker import RECONNECT_SECONDS, Publisher
from services.chassis.db import LockNotGranted
from services.chassis.errors import Unknown
from services.inventory import consumer as module
from services.inventory import queue_consumer
from services.inventory.consumer import DELAY_QUEUE, PARKING_QUEUE, RELEASE_QUEUE, SeatReleases
from services.inventory.queue_consumer import Consumer, Message
from services.inventory.store import holds
from tests.support import queue_admin
from tests.support.brokers import Broker
from tests.support.service_settings import new_id
from tests.support.waiting import wait_until
from tests.unit.inventory.inventory_service import CALL_SECONDS, InventoryService, expect_refusal

pytestmark = pytest.mark.unit


class RecordingPublisher:
    """A stub for Publisher that records the queue and expiry of each message."""

    def __init__(self) -> None:
        self.published: list[tuple[str, int | None]] = []

    def publish(self, _exchange: str, queue: str, _body: bytes, **fields: Any) -> None:
        self.published.append((queue, fields.get("expiration_ms")))


class Flow:
    """A consumer of the real queues. `notified` has the orders that Order was notified of."""

    def __init__(self, broker: Broker, inventory: InventoryService) -> None:
        self.notified: list[str] = []
        self.database_up = True
        self.publisher = Publisher(broker.settings, "test")
        self.releases = SeatReleases(inventory.db, self.publisher, lambda order_id: self.notified.append(str(order_id)))
        self.consumer = self.new_consumer(broker)

    def new_consumer(self, broker: Broker, handle: Callable[[Message], None] | None = None) -> Consumer:
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
        """Publish a wake-up message to the release queue, or to the hold queue with the TTL `after_ms`."""
        body = json_codec.encode({"seat_id": seat_id, "user_id": new_id(), "order_id": hold_id, "reserved_at": "now"})
        message_id = message_id or new_id()
        where = ("seat.release.exchange", "seat.release") if after_ms is None else ("seat.hold.exchange", "seat.hold")
        self.publisher.publish(*where, body, message_id=message_id, expiration_ms=after_ms, timeout=CALL_SECONDS)
        return message_id


@pytest.fixture
def flow(broker: Broker, inventory: InventoryService, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flow]:
    monkeypatch.setattr(queue_consumer, "_IDLE_SECONDS", 0.02)  # `stop` waits for this time
    queue_admin.purge(broker)
    flow = Flow(broker, inventory)
    flow.start()
    yield flow
    flow.stop()
    queue_admin.purge(broker)


def get_outcome(inventory: InventoryService, message_id: str) -> str | None:
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
def test_dead_lettered_message_releases_an_expired_hold(flow, inventory, caplog):
    seat_id, hold_id, user_id = inventory.held_seat(ttl=1)
    message_id = flow.wake_up(seat_id, hold_id, after_ms=1500)
    wait_until(lambda: inventory.seat(seat_id).status == "AVAILABLE")
    wait_until(lambda: get_outcome(inventory, message_id) == "RELEASED")
    wait_until(lambda: flow.notified == [hold_id])
    assert any(r.levelname == "WARNING" and f"Auto-released seat {seat_id}" in r.getMessage() for r in caplog.records)
    with expect_refusal("STEP_VOIDED"):
        inventory.reserve(seat_id, user_id, hold_id)


def test_duplicate_message_releases_and_notifies_once(flow, inventory):
    seat_id, hold_id, _ = inventory.held_seat()
    inventory.expire(seat_id)
    message_id = flow.wake_up(seat_id, hold_id)
    wait_until(lambda: get_outcome(inventory, message_id))
    new_hold = inventory.reserve(seat_id).hold_id
    flow.wake_up(seat_id, hold_id, message_id)
    _consume_all(flow, inventory)
    assert inventory.seat(seat_id).hold_id == new_hold
    assert flow.notified.count(hold_id) == 1


def test_message_of_an_older_hold_leaves_the_new_hold(flow, inventory):
    seat_id, old_hold, _ = inventory.held_seat()
    inventory.expire(seat_id)
    new_hold = inventory.reserve(seat_id).hold_id
    inventory.expire(seat_id)  # the message names the old hold
    message_id = flow.wake_up(seat_id, old_hold)
    wait_until(lambda: get_outcome(inventory, message_id) == "STALE")
    assert inventory.seat(seat_id).hold_id == new_hold


@pytest.mark.claim("lock/late-message-does-nothing")
def test_late_message_leaves_the_sale(flow, inventory):
    seat_id, order_id, owner = inventory.sold_seat()
    message_id = flow.wake_up(seat_id, order_id)
    wait_until(lambda: get_outcome(inventory, message_id) == "STALE")
    assert inventory.seat(seat_id).owner_user_id == owner
    assert flow.notified == []


def test_message_for_an_unknown_seat_is_consumed(flow, inventory):
    message_id = flow.wake_up(new_id(), new_id())
    wait_until(lambda: get_outcome(inventory, message_id) == "STALE")


def test_early_message_is_delayed_and_then_releases(flow, inventory):
    seat_id, hold_id, _ = inventory.held_seat(ttl=2)
    message_id = flow.wake_up(seat_id, hold_id)
    _consume_all(flow, inventory)
    assert (inventory.seat(seat_id).hold_id, get_outcome(inventory, message_id)) == (hold_id, None)
    wait_until(lambda: get_outcome(inventory, message_id) == "RELEASED")
    assert inventory.seat(seat_id).status == "AVAILABLE"


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"[]", b"{}", b'{"seat_id": "x", "order_id": "y"}', b"\xff", b"null"],
)
def test_malformed_message_is_parked_unchanged(flow, broker, body):
    message_id = new_id()
    flow.publisher.publish("seat.release.exchange", "seat.release", body, message_id=message_id)
    properties, parked = queue_admin.take(broker, PARKING_QUEUE)
    assert (properties.message_id, parked) == (message_id, body)


def test_message_without_an_id_is_parked(broker, inventory):
    publisher = RecordingPublisher()
    SeatReleases(inventory.db, publisher, print).handle(Message(b"{}", None, {}))  # type: ignore[arg-type]
    assert publisher.published == [(PARKING_QUEUE, None)]


def test_delay_has_an_upper_limit(inventory):
    """A message with a long delay would hold up the messages behind it."""
    publisher = RecordingPublisher()
    seat_id, hold_id, _ = inventory.held_seat(ttl=300)
    body = json_codec.encode({"seat_id": seat_id, "order_id": hold_id})
    SeatReleases(inventory.db, publisher, print).handle(Message(body, new_id(), {}))  # type: ignore[arg-type]
    assert publisher.published == [(DELAY_QUEUE, module.MAX_DELAY_MS)]


# ── failures


@pytest.mark.claim("consumer/redelivers-failures")
def test_temporary_failure_is_retried_and_then_released(flow, broker, inventory, impatient, monkeypatch):
    failures: list[LockNotGranted] = []
    release = holds.release_expired

    def release_or_record(*args: Any) -> Any:
        try:
            return release(*args)
        except LockNotGranted as failure:
            failures.append(failure)
            raise

    monkeypatch.setattr(holds, "release_expired", release_or_record)
    flow.consumer.stop()
    flow.consumer = flow.new_consumer(broker, SeatReleases(impatient.db, flow.publisher, print).handle)
    flow.consumer.start()
    seat_id, hold_id, _ = inventory.held_seat()
    inventory.expire(seat_id)
    with inventory.lock_row(seat_id):
        message_id = flow.wake_up(seat_id, hold_id)
        wait_until(lambda: failures)
    wait_until(lambda: get_outcome(inventory, message_id) == "RELEASED")


def test_permanent_failure_is_parked_after_five_retries(flow, broker, inventory, monkeypatch):
    monkeypatch.setattr(module, "FIRST_DELAY_MS", 10)
    attempts: list[str] = []

    def fail(*args: Any) -> Any:
        attempts.append(args[3])
        raise LockNotGranted("the row is locked")

    monkeypatch.setattr(holds, "release_expired", fail)
    message_id = flow.wake_up(new_id(), new_id())
    properties, _ = queue_admin.take(broker, PARKING_QUEUE)
    assert properties.message_id == message_id
    assert attempts == [message_id] * 6  # the first attempt and five retries
    assert queue_admin.depth(broker, DELAY_QUEUE) == queue_admin.depth(broker, RELEASE_QUEUE) == 0


def test_message_that_triggers_a_bug_is_parked(flow, broker, monkeypatch):
    monkeypatch.setattr(module, "FIRST_DELAY_MS", 10)
    monkeypatch.setattr(holds, "release_expired", lambda *_: 1 / 0)
    message_id = flow.wake_up(new_id(), new_id())
    properties, _ = queue_admin.take(broker, PARKING_QUEUE)
    assert properties.message_id == message_id


@pytest.mark.claim("consumer/acknowledges-last", "consumer/redelivers-failures")
def test_consumer_pauses_while_the_database_is_down(flow, broker, inventory, monkeypatch):
    down = _DatabaseDown(flow, inventory, monkeypatch)
    seat_id, hold_id, _ = inventory.held_seat()
    inventory.expire(seat_id)
    message_ids = [flow.wake_up(seat_id, hold_id), flow.wake_up(new_id(), new_id()), flow.wake_up(new_id(), new_id())]
    wait_until(lambda: flow.consumer.state == "paused")
    wait_until(lambda: queue_admin.depth(broker, RELEASE_QUEUE) == 3)  # returned to their queue and not delivered
    attempts = down.attempts
    assert (queue_admin.depth(broker, PARKING_QUEUE), queue_admin.depth(broker, DELAY_QUEUE)) == (0, 0)
    down.end()
    wait_until(lambda: all(get_outcome(inventory, message_id) for message_id in message_ids))
    assert attempts <= 2
    assert queue_admin.depth(broker, PARKING_QUEUE) == 0
    assert inventory.seat(seat_id).status == "AVAILABLE"


def test_idle_consumer_pauses_while_the_database_is_down(flow):
    wait_until(lambda: flow.consumer.state == "consuming")
    flow.database_up = False
    wait_until(lambda: flow.consumer.state == "paused")
    assert flow.consumer.counted is None
    flow.database_up = True
    wait_until(lambda: flow.consumer.state == "consuming")


class _DatabaseDown:
    def __init__(self, flow: Flow, inventory: InventoryService, monkeypatch: pytest.MonkeyPatch) -> None:
        self._flow = flow
        self.attempts = 0
        self._context = monkeypatch.context()
        inner = self._context.__enter__()
        inner.setattr(holds, "release_expired", self._fail)
        inner.setattr(inventory.db, "is_ready", lambda: False)
        flow.database_up = False

    def _fail(self, *_: Any) -> Any:
        self.attempts += 1
        raise Unknown("the database did not answer")

    def end(self) -> None:
        self._context.__exit__(None, None, None)
        self._flow.database_up = True


def test_message_stays_if_parking_is_not_confirmed(flow, broker, inventory, monkeypatch):
    """Parking is confirmed before the acknowledgement, so without a confirm the message is delivered again."""
    refuse = [True]
    publish = flow.publisher.publish

    def publish_without_confirm(exchange: str, queue: str, body: bytes, **fields: Any) -> None:
        if refuse[0] and queue == PARKING_QUEUE:
            raise Unknown("RabbitMQ did not confirm within 2 s")
        publish(exchange, queue, body, **fields)

    monkeypatch.setattr(flow.publisher, "publish", publish_without_confirm)
    flow.publisher.publish("seat.release.exchange", "seat.release", b"bad", message_id="bad")
    wait_until(lambda: flow.consumer.state != "consuming")
    refuse[0] = False
    properties, _ = queue_admin.take(broker, PARKING_QUEUE)
    assert properties.message_id == "bad"


@pytest.mark.claim("reserve/releases-when-publish-fails")
def test_publisher_and_consumer_recover_after_a_broker_outage(flow, broker, inventory):
    seat_id, hold_id, _ = inventory.held_seat()
    inventory.expire(seat_id)
    broker.stop()
    try:
        wait_until(lambda: not flow.publisher.is_ready())
        started = time.monotonic()
        with pytest.raises(Unknown):
            flow.wake_up(seat_id, hold_id)
        assert time.monotonic() - started < 1, "it waits for no confirm"
    finally:
        broker.start()
    wait_until(lambda: flow.publisher.is_ready() and flow.consumer.state == "consuming", seconds=30)
    message_id = flow.wake_up(seat_id, hold_id)
    wait_until(lambda: get_outcome(inventory, message_id) == "RELEASED")


def test_consumer_of_a_deleted_queue_is_not_consuming(flow, broker):
    """RabbitMQ cancels the consumer and refuses the next ones, until the queue is declared again."""
    wait_until(lambda: flow.consumer.state == "consuming")
    seen: set[tuple[str, int | None]] = set()
    with queue_admin.channel(broker) as channel:
        channel.queue_delete(RELEASE_QUEUE)
        try:
            wait_until(lambda: flow.consumer.state != "consuming")
            until = time.monotonic() + 3 * RECONNECT_SECONDS

            def sample() -> bool:
                seen.add((flow.consumer.state, flow.consumer.counted))
                return time.monotonic() > until

            wait_until(sample)
        finally:
            channel.queue_declare(RELEASE_QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
            channel.queue_bind(RELEASE_QUEUE, "seat.release.exchange", "seat.release")
    assert seen == {("connecting", None)}
    wait_until(lambda: flow.consumer.state == "consuming", seconds=10)


@pytest.mark.claim("consumer/prefetch")
def test_a_consumer_prefetches_at_most_32_messages(flow, broker):
    flow.consumer.stop()
    go = threading.Event()
    slow = flow.new_consumer(broker, lambda _: go.wait(15))
    slow.start()
    try:
        wait_until(lambda: slow.state == "consuming")
        for _ in range(40):
            flow.wake_up(new_id(), new_id())
        wait_until(lambda: queue_admin.depth(broker, RELEASE_QUEUE) == 40 - 32)
        go.set()
        wait_until(lambda: queue_admin.depth(broker, RELEASE_QUEUE) == 0)
    finally:
        go.set()
        slow.stop()


def test_two_consumers_share_the_queue(flow, broker, inventory):
    other = flow.new_consumer(broker)
    other.start()
    try:
        wait_until(lambda: other.state == "consuming")
        message_ids = [flow.wake_up(new_id(), new_id()) for _ in range(40)]
        wait_until(lambda: all(get_outcome(inventory, message_id) for message_id in message_ids))
    finally:
        other.stop()


def test_parked_messages_are_counted(flow, broker):
    flow.publisher.publish("", PARKING_QUEUE, b"{}", message_id="m")
    wait_until(lambda: flow.consumer.counted == 1)


def _consume_all(flow: Flow, inventory: InventoryService) -> None:
    """Wait until the consumer has handled every message that is in the queue now."""
    last = flow.wake_up(new_id(), new_id())
    wait_until(lambda: get_outcome(inventory, last))
