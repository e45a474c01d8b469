"""Cuts connections whose client is late with a request, because the server has no deadline for bodies.

Granian reads a body without a timeout, and it does not reveal the connection of a request. So this looks at the
server's sockets from outside: TCP counts what each of them has received and sent.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
_INFO_BYTES = 208  # of struct tcp_info in linux/tcp.h, up to and with tcpi_bytes_sent
_LAST_TIMES = struct.Struct("=I4xI")  # tcpi_last_data_sent and tcpi_last_data_recv, in milliseconds ago
_LAST_TIMES_AT, _SENT_AT = 44, 200


@dataclass(frozen=True)
class Connection:
    """A connection of a client at one moment. `sent` counts the bytes of all responses."""

    peer: tuple[str, int]
    sent: int
    is_answered: bool


class StalledConnections:
    """Cuts each connection on which a request has not arrived within `seconds`.

    A cut ends the reading side only, so the client can still get the response. `is_busy` returns whether a complete
    request has waited for its response as long. Its connection looks the same, so nothing is cut meanwhile.
    """

    def __init__(self, port: int, seconds: float, is_busy: Callable[[], bool]) -> None:
        self._port = port
        self._seconds = seconds
        self._is_busy = is_busy
        self._since: dict[tuple[tuple[str, int], int], float] = {}

    def tick(self) -> None:
        """Cut what is late now."""
        now = time.monotonic()
        before, self._since = self._since, {}
        late = set()
        for connection in self._list():
            if not connection.is_answered:
                began = (connection.peer, connection.sent)
                self._since[began] = before.get(began, now)
                if now - self._since[began] > self._seconds:
                    late.add(connection.peer)
        if late and not self._is_busy():
            self._cut(late)

    def _list(self) -> Iterator[Connection]:
        for connection in self._sockets():
            with suppress(OSError):  # the client has just closed it
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
                (sent,) = struct.unpack_from("=Q", info, _SENT_AT)
                sent_ago, received_ago = _LAST_TIMES.unpack_from(info, _LAST_TIMES_AT)
                yield Connection(connection.getpeername()[:2], sent, sent > 0 and sent_ago <= received_ago)

    def _cut(self, peers: set[tuple[str, int]]) -> None:
        for connection in self._sockets():
            with suppress(OSError):
                if connection.getpeername()[:2] in peers:
                    connection.shutdown(socket.SHUT_RD)
        logger.warning("cut %d connections without a whole request in %g s", len(peers), self._seconds)

    def _sockets(self) -> Iterator[socket.socket]:
        """Yield each connection of a client, as a duplicate that is closed afterwards."""
        for number in map(int, os.listdir("/proc/self/fd")):
            with suppress(OSError):  # closed since
                if stat.S_ISSOCK(os.fstat(number).st_mode):
                    with closing(socket.socket(fileno=os.dup(number))) as found:
                        if self._is_of_a_client(found):
                            yield found

    def _is_of_a_client(self, found: socket.socket) -> bool:
        is_inet = found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM
        return is_inet and found.getsockname()[1] == self._port and bool(found.getpeername())
