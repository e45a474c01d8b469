"""Calls that must still happen although the request that owes them has ended, such as the return of an attempt."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import count

from prometheus_client import Gauge

from services.chassis.errors import Refused, Unknown
from services.chassis.worker import Worker

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5  # between two tries
KEPT_SECONDS = 600.0  # the longest lifetime of what a call returns: a transfer, or a code that counts for a limit
PENDING = Gauge("clean_ups_pending", "Calls of ended requests that are repeated until they get an answer")


class CleanUps:
    """Repeats calls until they get an answer, for KEPT_SECONDS. Thread-safe. They are lost with the process."""

    def __init__(self) -> None:
        self._numbers = count()
        self._pending: dict[int, tuple[Callable[[], object], float]] = {}
        self._worker = Worker("clean-ups", self.tick, PAUSE_SECONDS)

    def start(self) -> None:
        """Start to repeat the calls."""
        self._worker.start()

    def stop(self) -> None:
        """Stop repeating the calls."""
        self._worker.stop()

    def run(self, call: Callable[[], object]) -> None:
        """Make the call, or leave it to the worker. It must be safe to repeat."""
        try:
            call()
        except Unknown as unknown:
            logger.warning("a clean-up is repeated later: %s", unknown.message)
            self.add(call)

    def add(self, call: Callable[[], object]) -> None:
        """Leave a call without an answer to the worker."""
        self._pending[next(self._numbers)] = call, time.monotonic() + KEPT_SECONDS
        PENDING.set(len(self._pending))

    def tick(self) -> None:
        """Make each call once."""
        for number, (call, forget_at) in tuple(self._pending.items()):
            try:
                call()
            except Refused as refusal:  # it has ended otherwise
                logger.warning("a clean-up was refused: %s", refusal)
            except Unknown:
                if time.monotonic() < forget_at:
                    continue
            except Exception:  # a bug, and the calls after this one must happen
                logger.exception("a clean-up failed")
            del self._pending[number]
        PENDING.set(len(self._pending))
