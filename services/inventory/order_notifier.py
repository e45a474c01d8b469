"""Notifies Order of each expired hold: one best-effort attempt on a thread of its own (D38).

Order's own sweeper finds each expired order, so the consumer never waits for Order and nothing is retried. While Order
is slow, notices beyond MAX_WAITING are dropped.
"""

from __future__ import annotations

import logging
import queue
import threading
from uuid import UUID

from services.chassis import correlation
from services.chassis.clients import HttpPeer
from services.chassis.errors import Refused, Unknown

logger = logging.getLogger(__name__)

MAX_WAITING = 1000
STOP_SECONDS = 5


class OrderNotifier:
    """A thread that posts the notices of `notify` to Order."""

    def __init__(self, orders: HttpPeer) -> None:
        self._orders = orders
        self._waiting: queue.Queue[tuple[UUID, str | None] | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="order-notifier", daemon=True)

    def start(self) -> None:
        """Start to post. Call it once, after the fork."""
        self._thread.start()

    def stop(self) -> None:
        """Post the waiting notices for at most 5 seconds."""
        try:
            self._waiting.put(None, timeout=STOP_SECONDS)
        except queue.Full:
            return
        if self._thread.is_alive():
            self._thread.join(timeout=STOP_SECONDS)

    def notify(self, order_id: UUID) -> None:
        """Queue a notice about the hold of this order. It never waits and never raises."""
        try:
            self._waiting.put_nowait((order_id, correlation.current()))
        except queue.Full:
            logger.warning("no notice of expired order %s: too many wait, so Order's sweeper finds it", order_id)

    def _run(self) -> None:
        while (notice := self._waiting.get()) is not None:
            order_id, correlation_id = notice
            with correlation.scope(correlation_id):
                self._post(order_id)

    def _post(self, order_id: UUID) -> None:
        try:
            self._orders.post(f"/orders/{order_id}/expire")
        except (Refused, Unknown) as error:
            logger.warning("no notice of expired order %s (%s): Order's sweeper finds it", order_id, error)
        except Exception:
            logger.exception("no notice of expired order %s", order_id)
