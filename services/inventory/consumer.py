"""Handles wake-up messages: releases the seat of a hold that is still the same and has expired (§8, D38).

    released or stale       acknowledged, and recorded in release_messages by the transaction of the release
    early                   published to the delay queue for the remaining time
    temporary failure       published to the delay queue at most MAX_ATTEMPTS times, then parked
    malformed               parked immediately for an operator
    database unavailable    returned to its queue: the consumer pauses, and the message counts no attempt

A message goes to another queue with a publisher confirm before this queue gets the acknowledgement.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from uuid import UUID, uuid4

import msgspec

from services.chassis import json_codec
from services.chassis.broker import Publisher
from services.chassis.db import Database
from services.chassis.errors import Unknown
from services.inventory import metrics
from services.inventory.queue_consumer import Message
from services.inventory.store import holds

logger = logging.getLogger(__name__)

RELEASE_QUEUE = "seat.release.queue"
DELAY_QUEUE = "seat.release.delay.queue"
PARKING_QUEUE = "seat.release.parking.queue"
ATTEMPTS = "attempts"
MAX_ATTEMPTS = 5
FIRST_DELAY_MS = 500  # doubled for each further attempt
# A queue drops expired messages only at its head, so a long delay would hold up the messages behind it.
MAX_DELAY_MS = 5_000
MIN_DELAY_MS = 50
MAX_MESSAGE_ID = 200


class _HoldMessage(msgspec.Struct):
    """The payload of §8. `order_id` is the hold_id. The other fields are for operators."""

    seat_id: UUID
    order_id: UUID


class _Malformed(Exception):
    pass


class SeatReleases:
    """Handles the messages of seat.release.queue. Several replicas may do so concurrently.

    `notify_order` gets the order id of each released hold. It must not wait or raise.
    """

    def __init__(self, db: Database, publisher: Publisher, notify_order: Callable[[UUID], None]) -> None:
        self._db = db
        self._publisher = publisher
        self._notify_order = notify_order

    def handle(self, message: Message) -> None:
        """Handle one message. Raises Unknown if it has to return to its queue."""
        try:
            hold, message_id = _parse(message)
        except _Malformed as malformed:
            self._park(message, "malformed", str(malformed))
            return
        try:
            wake_up = holds.release_expired(self._db, hold.seat_id, hold.order_id, message_id)
        except Unknown as unknown:
            if not self._db.is_ready():
                raise
            self._retry_later(message, unknown.message)
        except Exception as error:
            logger.exception("wake-up %s failed", message_id)
            self._retry_later(message, type(error).__name__)
        else:
            self._follow_up(wake_up, hold, message)

    def _follow_up(self, wake_up: holds.WakeUp, hold: _HoldMessage, message: Message) -> None:
        if wake_up.outcome == "EARLY":
            metrics.DELAYED.labels("early").inc()
            self._delay(message, int(wake_up.seconds_left * 1000) + MIN_DELAY_MS, _attempts(message))
        elif wake_up.outcome == "RELEASED":
            metrics.RELEASES.labels("message").inc()
            logger.warning("Auto-released seat %s after TTL expiry: hold %s", hold.seat_id, hold.order_id)
            self._notify_order(hold.order_id)

    def _retry_later(self, message: Message, reason: str) -> None:
        attempts = _attempts(message) + 1
        if attempts > MAX_ATTEMPTS:
            self._park(message, "attempts", reason)
            return
        metrics.DELAYED.labels("failed").inc()
        logger.warning("wake-up %s delayed after attempt %d: %s", message.message_id, attempts, reason)
        self._delay(message, FIRST_DELAY_MS * 2 ** (attempts - 1), attempts)

    def _delay(self, message: Message, milliseconds: int, attempts: int) -> None:
        self._publisher.publish(
            "",
            DELAY_QUEUE,
            message.body,
            message_id=str(message.message_id),
            expiration_ms=max(MIN_DELAY_MS, min(milliseconds, MAX_DELAY_MS)),
            headers={ATTEMPTS: attempts},
        )

    def _park(self, message: Message, reason: str, detail: str) -> None:
        message_id = message.message_id or str(uuid4())
        self._publisher.publish("", PARKING_QUEUE, message.body, message_id=message_id, headers={"reason": detail})
        metrics.PARKED.labels(reason).inc()
        logger.error("wake-up %s parked (%s): %s", message_id, reason, detail)


def _parse(message: Message) -> tuple[_HoldMessage, str]:
    if not message.message_id or len(message.message_id) > MAX_MESSAGE_ID or "\0" in message.message_id:
        raise _Malformed("no message_id")
    try:
        return json_codec.decode_as(message.body, _HoldMessage), message.message_id
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Malformed(str(error)) from None


def _attempts(message: Message) -> int:
    attempts = message.headers.get(ATTEMPTS, 0)
    return attempts if isinstance(attempts, int) else MAX_ATTEMPTS
