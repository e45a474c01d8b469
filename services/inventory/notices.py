"""Tells Order that a hold ran out: once, best effort, beside the consumer (D38 of the decisions).

Order's own sweeper is the truth, so nothing waits for Order here and nothing is asked twice: when Order is slow, the
notices that do not fit are dropped.
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

WAITING = 1000
STOP_SECONDS = 5


class OrderNotices:
    """A thread that posts what `tell` hands it."""

    def __init__(self, orders: HttpPeer) -> None:
        self._orders = orders
        self._waiting: queue.Queue[tuple[UUID, str | None] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="order-notices", daemon=True)

    def start(self) -> None:
        """Begin to post; called once, after the fork."""
        self._thread.start()

    def stop(self) -> None:
        """Post what is waiting, for at most 5 seconds."""
        try:
            self._waiting.put(None, timeout=STOP_SECONDS)
        except queue.Full:
            return
        if self._thread.is_alive():
            self._thread.join(timeout=STOP_SECONDS)

    def tell(self, order_id: UUID) -> None:
        """Have Order look at this order, soon or not at all. Never waits, never raises."""
        try:
            self._waiting.put_nowait((order_id, correlation.current()))
        except queue.Full:
            logger.warning("Order %s not told of its expiry: too many wait; Order's sweeper will find it", order_id)

    def _run(self) -> None:
        while (notice := self._waiting.get()) is not None:
            order_id, correlation_id = notice
            with correlation.scope(correlation_id):
                self._post(order_id)

    def _post(self, order_id: UUID) -> None:
        try:
            self._orders.post(f"/orders/{order_id}/expire")
        except (Refused, Unknown) as error:
            logger.warning("Order %s not told of its expiry (%s); Order's sweeper will find it", order_id, error)
        except Exception:
            logger.exception("Order %s not told of its expiry", order_id)
