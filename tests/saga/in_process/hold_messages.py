"""The real broker of the cells of `broker publish`, and the check that no hold message is lost (invariant I9).

After each execution the consumer of production gets every message of the hold queue, as if its TTL had ended. The
consumer acknowledges a message whose hold is gone, and returns a message that arrives before the end of its hold.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pika

from services.chassis.broker import Publisher, connection_parameters
from services.chassis.db import Database
from services.chassis.settings import BrokerSettings
from services.inventory.consumer import DELAY_QUEUE, PARKING_QUEUE, RELEASE_QUEUE, SeatReleases
from services.inventory.queue_consumer import Message
from tests.support.waiting import wait_until

HOLD_QUEUE = "seat.hold.queue"
READY_SECONDS = 10


def ignore_notice(_order_id: UUID) -> None:
    """Replace the notice to Order after a release, because the sweeper of Order finds the order, too."""


class HoldMessageBroker:
    """Publishes as an orchestrator does, and records what the broker confirmed. Nothing else may use the queues."""

    def __init__(self, settings: BrokerSettings, inventory: Database) -> None:
        self._inventory = inventory
        self._publisher = Publisher(settings, "saga-cells")
        self._publisher.start()
        self._releases = SeatReleases(inventory, self._publisher, ignore_notice)
        self._connection = pika.BlockingConnection(next(connection_parameters(settings, "saga-checks")))
        self._channel = self._connection.channel()
        self.confirmed: set[str] = set()
        wait_until(self._publisher.is_ready, READY_SECONDS, "the publisher is connected to RabbitMQ")
        self._empty()

    def close(self) -> None:
        """Empty the queues and close the connections."""
        self._empty()
        self._connection.close()
        self._publisher.stop()

    def send(self, *_message: Any, **_properties: Any) -> None:
        """Send nothing early."""

    def publish(self, *message: Any, message_id: str, **properties: Any) -> None:
        """Publish, and return when the broker has confirmed. Raises Unknown."""
        self._publisher.publish(*message, message_id=message_id, **properties)
        self.confirmed.add(message_id)

    def find_violations(self) -> list[str]:
        """Check I9: each confirmed message is consumed, parked or queued, and no other message exists."""
        for message in self._drain(HOLD_QUEUE):
            self._releases.handle(message)
        queued = {str(message.message_id) for queue in (DELAY_QUEUE, RELEASE_QUEUE) for message in self._drain(queue)}
        parked = {str(message.message_id) for message in self._drain(PARKING_QUEUE)}
        found = self._delete_consumed() | queued | parked
        lost, unknown = self.confirmed - found, found - self.confirmed
        self.confirmed.clear()
        return [
            *(
                f"i9_messages_are_somewhere: {id_} was confirmed and is in no queue and not consumed"
                for id_ in sorted(lost)
            ),
            *(f"i9_messages_are_somewhere: {id_} exists and was never confirmed" for id_ in sorted(unknown)),
        ]

    def _delete_consumed(self) -> set[str]:
        row = self._inventory.statement(
            """WITH consumed AS (DELETE FROM release_messages RETURNING message_id)
            SELECT coalesce(array_agg(message_id), '{}') AS ids FROM consumed"""
        )
        return set(row["ids"]) if row else set()

    def _drain(self, queue: str) -> list[Message]:
        """Remove all messages from a queue and return them."""
        messages = iter(lambda: self._channel.basic_get(queue, auto_ack=True), (None, None, None))
        return [Message(body, props.message_id, props.headers or {}) for _, props, body in messages]

    def _empty(self) -> None:
        for queue in (HOLD_QUEUE, DELAY_QUEUE, RELEASE_QUEUE, PARKING_QUEUE):
            self._drain(queue)
