"""The targets of one upstream: round robin over the healthy ones, with the health checks of Kong.

Kong counts with lua-resty-healthcheck. `Health` has its four counters and its rules for them. A host name is one
target here, while Kong resolves it and checks each address.
"""

from __future__ import annotations

import socket
import threading
import time
from itertools import count
from typing import Literal

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError

from fakes.kong.declarative import ActiveChecks, Checks, Target, Upstream

Event = Literal["success", "http", "tcp", "timeout"]
POOL = 512  # the number of idle connections in Kong (upstream_keepalive_pool_size)
# `proxy_socket_keepalive` of nginx with the sysctls of compose.yaml: seconds, seconds and probes. The kernel ends an
# idle connection whose target is gone. Otherwise the next POST on it gets 502, because Kong repeats no POST.
_KEEPALIVE = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3}
SOCKET_OPTIONS = [
    *HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in _KEEPALIVE.items()
        if hasattr(socket, name)
    ),
]


class Health:
    """The state of one target: `healthy`, `unhealthy`, or `mostly_` one of them while a counter is below its limit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = "healthy"
        self._counts: dict[Event, int] = {}

    @property
    def is_available(self) -> bool:
        """True if the target gets requests."""
        return self._state in ("healthy", "mostly_healthy")

    def report(self, event: Event, limit: int) -> None:
        """Count an event. The target changes at the `limit`th one (0: never). A success resets the failures."""
        is_success = event == "success"
        reported = "healthy" if is_success else "unhealthy"
        if not limit or reported == self._state:
            return
        with self._lock:
            kept = {name: number for name, number in self._counts.items() if (name == "success") == is_success}
            self._counts = {**kept, event: kept.get(event, 0) + 1}
            if self._counts[event] >= limit:
                self._state = reported
            elif not self._state.startswith("mostly_"):
                self._state = f"mostly_{self._state}"


class CheckedTarget:
    """One target with its connections and its health."""

    def __init__(self, target: Target, checks: Checks) -> None:
        self._host, _, port = target.target.rpartition(":")
        self._port = int(port)
        self._checks = checks
        self.health = Health()
        self.pool = urllib3.HTTPConnectionPool(self._host, self._port, maxsize=POOL, socket_options=SOCKET_OPTIONS)

    def note_response(self, status: int) -> None:
        """Count the response that a client got, also one of the gateway itself."""
        limits = self._checks.passive.unhealthy
        if status == 504:
            self.health.report("timeout", limits.timeouts)
        elif status in limits.http_statuses:
            self.health.report("http", limits.http_failures)

    def note_repeated_try(self, status: int) -> None:
        """Count a try without a response, after which the request goes to the next target."""
        limits = self._checks.passive.unhealthy
        if status == 504:
            self.health.report("timeout", limits.timeouts)
        else:
            self.health.report("tcp", limits.tcp_failures)

    def start_checks(self) -> None:
        """Start the active checks, unless they are off."""
        if self._checks.active.healthy.interval:
            threading.Thread(target=self._check_forever, name=f"check {self._host}:{self._port}", daemon=True).start()

    def _check_forever(self) -> None:
        active = self._checks.active
        while True:
            started = time.monotonic()
            self._check(active)
            interval = (active.healthy if self.health.is_available else active.unhealthy).interval
            time.sleep(max(0.0, started + interval - time.monotonic()))

    def _check(self, active: ActiveChecks) -> None:
        limits = active.unhealthy
        try:
            with urllib3.HTTPConnectionPool(self._host, self._port, timeout=active.timeout, retries=False) as once:
                status = once.request("GET", active.http_path, headers={"Connection": "close"}).status
        except NewConnectionError:  # before ConnectTimeoutError, which is its base class
            self.health.report("tcp", limits.tcp_failures)
        except (ConnectTimeoutError, ReadTimeoutError):
            self.health.report("timeout", limits.timeouts)
        except HTTPError:
            self.health.report("tcp", limits.tcp_failures)
        else:
            if status in active.healthy.http_statuses:
                self.health.report("success", active.healthy.successes)
            elif status in limits.http_statuses:
                self.health.report("http", limits.http_failures)


class Balancer:
    """The targets of one upstream. It opens connections on demand, so it can be created before a fork."""

    def __init__(self, upstream: Upstream) -> None:
        self._targets = [CheckedTarget(target, upstream.healthchecks) for target in upstream.targets]
        self._turns = count()

    def start_checks(self) -> None:
        """Start the active checks of each target. Call it once, after the fork."""
        for target in self._targets:
            target.start_checks()

    def choose(self) -> CheckedTarget | None:
        """Return the next healthy target, or None."""
        available = [target for target in self._targets if target.health.is_available]
        return available[next(self._turns) % len(available)] if available else None
