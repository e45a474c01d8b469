"""The replicas behind one address. A replica that does not answer gets no calls until it is healthy again.

`ReplicatedChannel` uses them for gRPC and `PooledTransport` for HTTP. Each replica has its own connections, because a
name alone does not show which of its replicas hangs.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

RESOLVE_SECONDS = 5.0  # between two look-ups of the name, so that new replicas get calls
LOOK_UP_SECONDS = 2.0  # the longest wait for the first look-up
FIRST_CHECK, LAST_CHECK = 0.25, 8.0  # seconds until the health check of a silent replica, doubled each time
CHECK_SECONDS = 1.0  # the timeout of a health check


class NotConnected(ConnectionError):
    """No connection was made, so nothing was sent."""


class Replica:
    """One `ip:port` of a service. A subclass checks its health."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._pause = FIRST_CHECK
        self._check_at: float | None = None  # None while the replica gets calls

    @property
    def is_silent(self) -> bool:
        """True until a health check succeeds after a call without an answer."""
        return self._check_at is not None

    def suspend(self) -> None:
        """Leave the replica out until it is healthy."""
        if self._check_at is None:
            logger.warning("%s does not answer and gets no calls until it is healthy", self.address)
            self._check_at = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, LAST_CHECK)

    def check_if_due(self, now: float) -> None:
        """Start a health check if it is time."""
        if self._check_at is not None and now >= self._check_at:
            self._check_at = now + CHECK_SECONDS + self._pause
            self.start_check()

    def start_check(self) -> None:
        """Start a health check of at most CHECK_SECONDS. If it succeeds, it calls `end_suspension`."""
        raise NotImplementedError

    def end_suspension(self) -> None:
        """Let the replica get calls again."""
        self._check_at = None

    def note_answer(self) -> None:
        """Note that a call was answered, so the next suspension is short again."""
        self._pause = FIRST_CHECK


R = TypeVar("R", bound=Replica)


class Replicas(Generic[R]):
    """The replicas behind `address`. Thread-safe.

    `address` is `host:port`, where the host may have several IP addresses, or a comma-separated list of `ip:port`.
    `make` creates the replica of one `ip:port`.
    """

    def __init__(self, address: str, make: Callable[[str], R]) -> None:
        self._address = address
        self._make = make
        self._lock = threading.Lock()
        self._turns = count()
        self._resolve_at = float("-inf")
        self._looked_up = threading.Event()
        self.present: tuple[R, ...] = ()

    def choose(self) -> list[R]:
        """Return the replicas in the order in which they get a call: each in turn is first, silent ones are last.

        Raises NotConnected if the name has no address.
        """
        now = time.monotonic()
        if now >= self._resolve_at:
            self._look_up_again(now)
        replicas = self.present or self._wait_for_first()
        if len(replicas) < 2:
            return list(replicas)
        turn = next(self._turns) % len(replicas)
        in_turn = [*replicas[turn:], *replicas[:turn]]
        for replica in replicas:
            replica.check_if_due(now)
        return sorted(in_turn, key=lambda replica: replica.is_silent)

    def look_up_soon(self) -> None:
        """Look the name up at one of the next calls, because no replica takes connections."""
        if "," not in self._address:
            self._resolve_at = min(self._resolve_at, time.monotonic() + FIRST_CHECK)

    def _look_up_again(self, now: float) -> None:
        """Start to look up the name on another thread, because a name server may be slow."""
        with self._lock:
            if now < self._resolve_at:
                return
            self._looked_up = threading.Event()
            self._resolve_at = float("inf") if "," in self._address else now + RESOLVE_SECONDS
        threading.Thread(target=self._look_up, args=(self._looked_up,), name="resolver", daemon=True).start()

    def _wait_for_first(self) -> tuple[R, ...]:
        """Return the replicas of a new address. Calls that come during the first look-up wait for it."""
        self._looked_up.wait(LOOK_UP_SECONDS)
        if not self.present:
            raise NotConnected(f"{self._address} has no address")
        return self.present

    def _look_up(self, ended: threading.Event) -> None:
        known = {replica.address: replica for replica in self.present}
        try:
            # A replica that is gone is not closed here, because it may still work on a call.
            self.present = tuple(known.get(address) or self._make(address) for address in resolve(self._address))
        except OSError as error:
            logger.warning("%s cannot be resolved, so its replicas stay as they are: %s", self._address, error)
            self._resolve_at = time.monotonic() + FIRST_CHECK
        finally:
            ended.set()


def resolve(address: str) -> list[str]:
    """Return each `ip:port` behind an address. Raises OSError for an unknown name."""
    if "," in address:
        return [each.strip() for each in address.split(",")]
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    places = sorted({(family, str(place[0]), int(place[1])) for family, *_, place in found})
    return [f"[{ip}]:{number}" if family is socket.AF_INET6 else f"{ip}:{number}" for family, ip, number in places]
