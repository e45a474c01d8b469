"""Background work: one named thread that ticks until it is stopped. Sweepers, pollers, heartbeats are all this."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from services.chassis import correlation
from services.chassis.errors import Unknown

logger = logging.getLogger(__name__)


class Background(Protocol):
    """Something that runs beside the requests of a process."""

    def start(self) -> None:
        """Begin; called once, after the server process has forked."""

    def stop(self) -> None:
        """End what is in hand and return within a few seconds."""


class Worker:
    """Calls `tick` every `interval` seconds, each time under a correlation id of its own.

    A tick that raises is logged and the next one comes all the same: the work is found in a database, so nothing
    is lost. `tick` may return True to be called again at once (there was more to do).
    """

    def __init__(self, name: str, tick: Callable[[], bool | None], interval: float) -> None:
        self.name = name
        self._tick = tick
        self._interval = interval
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the tick in hand finish (at most 5 seconds) and end the thread."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def is_alive(self) -> bool:
        """True while the thread runs: a liveness check."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped.is_set():
            if not self._ticked():
                self._stopped.wait(self._interval)

    def _ticked(self) -> bool:
        with correlation.scope():
            try:
                return bool(self._tick())
            except Unknown as error:
                logger.warning("%s could not work: %s", self.name, error.message)
            except Exception:
                logger.exception("%s failed", self.name)
        return False
