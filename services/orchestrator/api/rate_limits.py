"""Limits on expensive calls in a minute, by verified user and by address.

The counts are in this process, because a shared count would add a call to each purchase. Behind N replicas, a user can
therefore make up to N times as many calls.
"""

from __future__ import annotations

import time
from threading import Lock

from services.chassis.access import identity
from services.chassis.addresses import client_address
from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode

WINDOW_SECONDS = 60
MOST_KEYS = 100_000  # about 20 MB. Beyond that, the oldest key of the minute is forgotten


class ExpensiveCalls:
    """Counts the calls that hold seats, send messages, check codes or call Stripe. Thread-safe. 0 is no limit."""

    def __init__(self, per_user: int, per_address: int) -> None:
        self._per_user = per_user
        self._per_address = per_address
        self._lock = Lock()
        self._window = 0
        self._counts: dict[str, int] = {}

    def count(self) -> None:
        """Count the current request. Raises Refused RATE_LIMITED with `retry_after` in seconds."""
        limits = {f"user {identity().user_id}": self._per_user, f"address {client_address()}": self._per_address}
        now = int(time.time())
        with self._lock:
            self._begin_window(now // WINDOW_SECONDS)
            is_exceeded = any(limit and self._counts.get(key, 0) >= limit for key, limit in limits.items())
            if not is_exceeded:
                for key in limits:
                    self._counts[key] = self._counts.get(key, 0) + 1
                while len(self._counts) > MOST_KEYS:
                    del self._counts[next(iter(self._counts))]
        if is_exceeded:
            wait = WINDOW_SECONDS - now % WINDOW_SECONDS
            raise Refused(ErrorCode.RATE_LIMITED, f"Too many requests. Try again in {wait} s.", retry_after=wait)

    def _begin_window(self, window: int) -> None:
        if window != self._window:
            self._window, self._counts = window, {}
