"""The real broker of the AMQP cells: production's publisher, and after each execution what becomes of its messages.

Every message that waits in the hold queue is handed to production's consumer at once, as if its hold's time were up
by the broker's clock: one whose hold is gone is worked off, one that comes too early goes back to wait.
"""

from __future__ import annotations

import time
from uuid import UUID

import pika

from services.chassis.broker import Publisher, connection_parameters
from services.chassis.db import Database
from services.chassis.settings import BrokerSettings
from services.inventory.consumer import DELAY_QUEUE, PARKING_QUEUE, RELEASE_QUEUE, SeatReleases
from services.inventory.queue_consumer import Message

HOLD_QUEUE = "seat.hold.queue"
READY_SECONDS = 10


def ignore_notice(_order_id: UUID) -> None:
    """Stand in for the notice to Order, because Order's own sweeper finds the order too."""


class WakeUps:
    """Publishes as an orchestrator does and counts what the broker confirmed. All queues are this object's alone."""

    def __init__(self, settings: BrokerSettings, inventory: Database) -> None:
        self._inventory = inventory
        self._publisher = Publisher(settings, "saga-cells")
        self._publisher.start()
        self._releases = SeatReleases(inventory, self._publisher, ignore_notice)
        self._connection = pika.BlockingConnection(connection_parameters(settings, "saga-look"))
        self._channel = self._connection.channel()
        self.confirmed: set[str] = set()
        self._await_publisher()
        self._empty()

    def close(self) -> None:
        """Leave the broker as it was found."""
        self._empty()
        self._connection.close()
        self._publisher.stop()

    def publish(
        self, exchange: str, routing_key: str, body: bytes, *, message_id: str, expiration_ms: int | None = None
    ) -> None:
        """Return once the broker has confirmed. Raises Unknown."""
        self._publisher.publish(exchange, routing_key, body, message_id=message_id, expiration_ms=expiration_ms)
        self.confirmed.add(message_id)

    def violations(self) -> list[str]:
        """I9, both ways: the ids that were confirmed are the ids consumed, parked or still queued."""
        for message in self._taken(HOLD_QUEUE):
            self._releases.handle(message)
        queued = {str(message.message_id) for queue in (DELAY_QUEUE, RELEASE_QUEUE) for message in self._taken(queue)}
        parked = {str(message.message_id) for message in self._taken(PARKING_QUEUE)}
        found = self._consumed() | queued | parked
        lost, strange = self.confirmed - found, found - self.confirmed
        self.confirmed.clear()
        return [
            *(f"i9_messages_are_somewhere: {one} was confirmed and is nowhere" for one in sorted(lost)),
            *(f"i9_messages_are_somewhere: {one} is there and was never confirmed" for one in sorted(strange)),
        ]

    def _consumed(self) -> set[str]:
        row = self._inventory.statement(
            """WITH consumed AS (DELETE FROM release_messages RETURNING message_id)
            SELECT coalesce(array_agg(message_id), '{}') AS ids FROM consumed"""
        )
        return set(row["ids"]) if row else set()

    def _taken(self, queue: str) -> list[Message]:
        """All that waits in a queue, taken out of it."""
        got = iter(lambda: self._channel.basic_get(queue, auto_ack=True), (None, None, None))
        return [Message(body, props.message_id, props.headers or {}) for _, props, body in got]

    def _empty(self) -> None:
        for queue in (HOLD_QUEUE, DELAY_QUEUE, RELEASE_QUEUE, PARKING_QUEUE):
            self._taken(queue)

    def _await_publisher(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self._publisher.is_ready():
            assert time.monotonic() < deadline, "RabbitMQ takes no messages"
            time.sleep(0.02)  # between two looks at the connection
