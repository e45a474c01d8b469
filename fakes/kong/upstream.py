"""The client of one service, with a connection pool, timeouts and Kong's retries."""

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

POOL = 512  # the number of idle connections in Kong (upstream_keepalive_pool_size)
IDEMPOTENT = frozenset(("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"))
# urllib3 would add these defaults, but the upstream must get only the client's headers.
NO_DEFAULTS = {"Accept-Encoding": urllib3.util.SKIP_HEADER, "User-Agent": urllib3.util.SKIP_HEADER}


@dataclass(frozen=True, slots=True)
class Reply:
    """The unchanged response of the upstream."""

    status: int
    reason: str
    headers: Headers
    body: bytes


class Upstream:
    """A service behind the gateway. It opens connections on demand, so it can be created before a fork."""

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
        """Call the service and retry a lost connection `retries` times.

        A request that may have arrived is retried only if its method is idempotent. Never raises. Returns 502 for a
        refused or broken connection, 503 for an unknown host and 504 for a timeout.
        """
        refusal = Refusal(502, UPSTREAM_MESSAGES[502])
        for _ in range(self._tries):
            try:
                return self._once(method, target, headers, body)
            except HTTPError as error:
                refusal = _to_refusal(error)
                is_unsent = isinstance(error, NewConnectionError | ConnectTimeoutError)
                if not is_unsent and method not in IDEMPOTENT:
                    break
        return refusal

    def _once(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply:
        response = self._pool.urlopen(
            method,
            target,
            body=body or None,
            headers={**NO_DEFAULTS, **headers},
            retries=False,
            redirect=False,
            assert_same_host=False,
            decode_content=False,
        )
        return Reply(response.status, response.reason or "", list(response.headers.items()), response.data)


def _to_refusal(error: HTTPError) -> Refusal:
    match error:
        case NameResolutionError():
            status = 503
        case NewConnectionError():  # before ConnectTimeoutError, which is its base class
            status = 502
        case ConnectTimeoutError() | ReadTimeoutError():
            status = 504
        case _:
            status = 502
    return Refusal(status, UPSTREAM_MESSAGES[status])
