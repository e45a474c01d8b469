"""The way to one service: pooled connections, timeouts and Kong's retries."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)

from fakes.kong.declarative import Service
from fakes.kong.exchange import Headers
from fakes.kong.refusals import UPSTREAM_MESSAGES, Refusal

POOL = 512  # as many idle connections as Kong keeps (upstream_keepalive_pool_size)
IDEMPOTENT = frozenset(("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"))
# urllib3's own defaults stay out: what the client did not send, the upstream does not see.
QUIET = {"Accept-Encoding": urllib3.util.SKIP_HEADER, "User-Agent": urllib3.util.SKIP_HEADER}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the upstream said, as it said it."""

    status: int
    reason: str
    headers: Headers
    body: bytes


class Upstream:
    """A service behind the gateway. Connections are opened when first needed, so it may be made before a fork."""

    def __init__(self, service: Service) -> None:
        parts = urlsplit(service.url)
        self.name = service.name
        self._tries = service.retries + 1
        self._pool = urllib3.HTTPConnectionPool(
            parts.hostname or "",
            parts.port or 80,
            maxsize=POOL,
            timeout=urllib3.Timeout(connect=service.connect_timeout / 1000, read=service.read_timeout / 1000),
        )

    def send(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply | Refusal:
        """Ask the service. A lost connection is retried `retries` times; what may have arrived only if idempotent.

        Never raises: 502 for a refused or broken connection, 503 for an unknown host, 504 for a timeout.
        """
        refusal = Refusal(502, UPSTREAM_MESSAGES[502])
        for _ in range(self._tries):
            try:
                return self._once(method, target, headers, body)
            except HTTPError as problem:
                refusal = _explain(problem)
                unsent = isinstance(problem, NewConnectionError | ConnectTimeoutError)
                if not unsent and method not in IDEMPOTENT:
                    break
        return refusal

    def _once(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply:
        response = self._pool.urlopen(
            method,
            target,
            body=body or None,
            headers={**QUIET, **headers},
            retries=False,
            redirect=False,
            assert_same_host=False,
            decode_content=False,
        )
        return Reply(response.status, response.reason or "", list(response.headers.items()), response.data)


def _explain(problem: HTTPError) -> Refusal:
    match problem:
        case NameResolutionError():
            status = 503
        case NewConnectionError():  # which urllib3 counts among the connect timeouts
            status = 502
        case ConnectTimeoutError() | ReadTimeoutError():
            status = 504
        case _:
            status = 502
    return Refusal(status, UPSTREAM_MESSAGES[status])
