"""The plugin rate-limiting with `policy: local`: fixed windows, counted in this process."""

from __future__ import annotations

import threading
import time

from fakes.kong.declarative import RateLimitingConfig
from fakes.kong.exchange import Exchange, Headers, put
from fakes.kong.refusals import Refusal

PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}  # seconds


class Window:
    """The counters of one period. The next window starts without them."""

    def __init__(self, name: str, limit: float) -> None:
        self.title = name.capitalize()
        self.seconds = PERIODS[name]
        self.limit = int(limit)
        self.start = 0
        self.counts: dict[str, int] = {}

    def remaining(self, client: str, now: int) -> int:
        """Return the requests that `client` has left in the window of `now`, in Unix seconds."""
        start = now - now % self.seconds
        if start != self.start:
            self.start, self.counts = start, {}
        return self.limit - self.counts.get(client, 0)

    def time_to_reset(self, now: int) -> int:
        """Return the seconds until the window ends, at least 1."""
        return max(1, self.seconds - (now - self.start))


class RateLimitingPlugin:
    """Refuses with 429 once a limit is used up. Refused requests do not count."""

    def __init__(self, config: RateLimitingConfig) -> None:
        self._config = config
        limits = {name: getattr(config, name) for name in PERIODS}
        self._windows = [Window(name, limit) for name, limit in limits.items() if limit is not None]
        self._lock = threading.Lock()

    def access(self, exchange: Exchange) -> Refusal | None:
        """Count the request or refuse it."""
        now = int(time.time())
        client = self._identify(exchange)
        with self._lock:
            left = [(window, window.remaining(client, now)) for window in self._windows]
            exceeded = next((window for window, remaining in left if remaining <= 0), None)
            if exceeded is None:
                for window in self._windows:
                    window.counts[client] = window.counts.get(client, 0) + 1
        headers, reset = self._headers(left, exceeded, now)
        exchange.limits = [] if self._config.hide_client_headers else headers
        if exceeded is None:
            return None
        return Refusal(429, "API rate limit exceeded", (("Retry-After", str(reset)),))

    def header_filter(self, exchange: Exchange, headers: Headers) -> None:
        """Add the headers of the limits."""
        for name, value in exchange.limits:
            put(headers, name, value)

    def _identify(self, exchange: Exchange) -> str:
        name = self._config.header_name
        value = exchange.header(name) if self._config.limit_by == "header" and name else ""
        return value or exchange.client

    def _headers(self, left: list[tuple[Window, int]], exceeded: Window | None, now: int) -> tuple[Headers, int]:
        """Build Kong's headers of each period and of the tightest one. Also return the seconds until its reset."""
        headers: Headers = []
        tightest: tuple[int, int, Window] | None = None
        for window, remaining in left:
            shown = max(0, remaining - 1 if exceeded in (None, window) else remaining)
            headers.append((f"X-RateLimit-Limit-{window.title}", str(window.limit)))
            headers.append((f"X-RateLimit-Remaining-{window.title}", str(shown)))
            candidate = (shown, -window.seconds, window)
            if tightest is None or candidate[:2] < tightest[:2]:
                tightest = candidate
        assert tightest is not None  # noqa: S101 - a limit is required at start
        reset = tightest[2].time_to_reset(now)
        headers.append(("RateLimit-Limit", str(tightest[2].limit)))
        headers.append(("RateLimit-Remaining", str(tightest[0])))
        headers.append(("RateLimit-Reset", str(reset)))
        return headers, reset
