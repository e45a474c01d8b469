"""The client of one service, with its timeouts and Kong's retries."""

from __future__ import annotations

from dataclasses import dataclass

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)

from fakes.kong.balancer import Balancer, CheckedTarget
from fakes.kong.declarative import Service
from fakes.kong.exchange import Headers
from fakes.kong.refusals import UPSTREAM_MESSAGES, Refusal

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
    """A service behind the gateway."""

    def __init__(self, service: Service, balancer: Balancer) -> None:
        self.name = service.name
        self._balancer = balancer
        self._retries = service.retries
        self._timeout = urllib3.Timeout(connect=service.connect_timeout / 1000, read=service.read_timeout / 1000)

    def send(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply | Refusal:
        """Call the service and retry a lost connection `retries` times, each time at the next healthy target.

        A request that may have arrived is retried only if its method is idempotent. Never raises. Returns 502 for a
        refused or broken connection, 503 for an unknown host or without a healthy target, and 504 for a timeout.
        """
        retries = self._retries
        while (chosen := self._balancer.choose()) is not None:
            outcome, may_repeat = self._once(chosen, method, target, headers, body)
            if not may_repeat or not retries:
                chosen.note_response(outcome.status)
                return outcome
            chosen.note_repeated_try(outcome.status)
            retries -= 1
        return Refusal(503, UPSTREAM_MESSAGES[503])

    def _once(
        self, chosen: CheckedTarget, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[Reply | Refusal, bool]:
        """Call one target. Also return whether the request may be sent again without a second effect."""
        try:
            return self._exchange(chosen, method, target, headers, body), False
        except HTTPError as error:
            is_unsent = isinstance(error, NewConnectionError | ConnectTimeoutError)
            return _to_refusal(error), is_unsent or method in IDEMPOTENT

    def _exchange(self, chosen: CheckedTarget, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply:
        response = chosen.pool.urlopen(
            method,
            target,
            timeout=self._timeout,
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
