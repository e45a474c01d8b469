"""Background work: a named thread that runs a tick periodically, for sweepers, pollers and heartbeats."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from services.chassis import correlation
from services.chassis.errors import Unknown

logger = logging.getLogger(__name__)


class Background(Protocol):
    """Work that runs in parallel with the requests of a process."""

    def start(self) -> None:
        """Start. The server calls it once, after the fork."""

    def stop(self) -> None:
        """Finish the current work and return within a few seconds."""


class Worker:
    """Calls `tick` every `interval` seconds, each time with a new correlation id.

    An exception of a tick is logged, and the next tick runs. Nothing is lost, because ticks read their work from a
    database. If `tick` returns True, there is more to do and the next tick runs immediately.
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
        """Wait up to 5 seconds for the current tick, and end the thread."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def is_alive(self) -> bool:
        """The liveness check: True while the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped.is_set():
            if not self._tick_once():
                self._stopped.wait(self._interval)

    def _tick_once(self) -> bool:
        with correlation.scope():
            try:
                return bool(self._tick())
            except Unknown as error:
                logger.warning("%s has to wait: %s", self.name, error.message)
            except Exception:
                logger.exception("%s failed", self.name)
        return False
