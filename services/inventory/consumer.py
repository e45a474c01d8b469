"""What a wake-up message does: take the hold off its seat, if it is still the same hold and its time is up (§8, D38).

    released, or nothing to do any more   acknowledged; recorded in release_messages with the release
    early                                 to the delay queue for the time that is left, and here again
    a failure that may pass               to the delay queue, at most `MAX_ATTEMPTS` times, then parked
    malformed                             parked at once, for people to look at
    the database is down                  put down: consuming stops until it is back; nothing is parked or counted

What goes to another queue is confirmed there before it is acknowledged here.
"""

from __future__ import annotations

import logging
from typing import Protocol
from uuid import UUID, uuid4

import msgspec

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
FIRST_DELAY_MS = 500  # then twice as long each time
# A queue drops what has expired only at its head: a message that waits longer would hold up those behind it.
MAX_DELAY_MS = 5_000
MIN_DELAY_MS = 50
MAX_MESSAGE_ID = 200


class Tells(Protocol):
    """Has Order look at an order whose hold ran out."""

    def tell(self, order_id: UUID) -> None:
        """Never waits, never raises."""


class _HoldMessage(msgspec.Struct):
    """§8's payload; `order_id` is the hold_id. `user_id` and `reserved_at` are for people."""

    seat_id: UUID
    order_id: UUID


class _Malformed(Exception):
    pass


class SeatReleases:
    """Handles the messages of seat.release.queue; may be called by several replicas at once."""

    def __init__(self, db: Database, publisher: Publisher, orders: Tells) -> None:
        self._db = db
        self._publisher = publisher
        self._orders = orders

    def handle(self, message: Message) -> None:
        """Work off one message. Raises Unknown when it has to stay where it is."""
        try:
            hold, message_id = _read(message)
        except _Malformed as malformed:
            self._park(message, "malformed", str(malformed))
            return
        try:
            wake_up = holds.release_expired(self._db, hold.seat_id, hold.order_id, message_id)
        except Unknown as unknown:
            if not self._db.is_ready():
                raise
            self._try_later(message, unknown.message)
        except Exception as error:
            logger.exception("wake-up %s failed", message_id)
            self._try_later(message, type(error).__name__)
        else:
            self._follow_up(wake_up, hold, message)

    def _follow_up(self, wake_up: holds.WakeUp, hold: _HoldMessage, message: Message) -> None:
        if wake_up.outcome == "EARLY":
            metrics.DELAYED.labels("early").inc()
            self._delay(message, int(wake_up.seconds_left * 1000) + MIN_DELAY_MS, _attempts(message))
        elif wake_up.outcome == "RELEASED":
            metrics.RELEASES.labels("message").inc()
            logger.warning("Auto-released seat %s after TTL expiry: hold %s", hold.seat_id, hold.order_id)
            self._orders.tell(hold.order_id)

    def _try_later(self, message: Message, reason: str) -> None:
        attempts = _attempts(message) + 1
        if attempts > MAX_ATTEMPTS:
            self._park(message, "attempts", reason)
            return
        metrics.DELAYED.labels("failed").inc()
        logger.warning("wake-up %s put off, attempt %d: %s", message.message_id, attempts, reason)
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


def _read(message: Message) -> tuple[_HoldMessage, str]:
    if not message.message_id or len(message.message_id) > MAX_MESSAGE_ID or "\0" in message.message_id:
        raise _Malformed("no message_id")
    try:
        return msgspec.json.decode(message.body, type=_HoldMessage), message.message_id
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Malformed(str(error)) from None


def _attempts(message: Message) -> int:
    counted = message.headers.get(ATTEMPTS, 0)
    return counted if isinstance(counted, int) else MAX_ATTEMPTS
