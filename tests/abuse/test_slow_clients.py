"""Clients that open many connections and send half a request on each, to the gateway and to a service."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest

from tests.abuse.addresses import new_addresses
from tests.abuse.honest_buyers import HonestBuyers
from tests.support.system import TestSystem

pytestmark = [pytest.mark.abuse, pytest.mark.usefixtures("invariants")]

CONNECTIONS = 120  # of each kind, four times the threads of a service
MOST_SECONDS = 3.0  # for an honest purchase, also on a busy machine
HALF_HEAD = b"POST /api/auth/login HTTP/1.1\r\nHost: ticketremaster"
HALF_BODY = HALF_HEAD + b"\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"


@contextmanager
def half_sent(url: str) -> Iterator[None]:
    """Hold connections with half a head and with half a body during the block, each from another address."""
    parts = urlsplit(url)
    with ExitStack() as opened:
        for address in new_addresses(CONNECTIONS):
            for sent in (HALF_HEAD, HALF_BODY):
                connection = socket.create_connection(
                    (parts.hostname or "", parts.port or 80), timeout=5, source_address=(address, 0)
                )
                opened.enter_context(connection).sendall(sent)
        yield


@pytest.mark.parametrize("target", ["api-gateway", "user-service", "orchestrator-service"])
def test_half_sent_requests_leave_the_threads_to_buyers(
    system: TestSystem, honest_buyers: Callable[[], HonestBuyers], target: str
) -> None:
    with half_sent(system.stack.url(target)), honest_buyers() as buyers:
        system.wait_until("two purchases", lambda: len(buyers.seconds) >= 2)
    assert max(buyers.seconds) < MOST_SECONDS
