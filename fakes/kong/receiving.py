"""The deadline for a request. A client that is late with its head or its body would occupy a thread of gunicorn.

In Kong nginx reads requests without a thread. KONG_NGINX_HTTP_CLIENT_HEADER_TIMEOUT and
KONG_NGINX_HTTP_CLIENT_BODY_TIMEOUT (compose.yaml) end it there. nginx counts the time between two reads of a body,
and this file the time for all of it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

SECONDS = 10.0
TICK_SECONDS = 1.0


class Deadlines:
    """The connections on which a request arrives at this moment. A late one is cut for reading."""

    def __init__(self) -> None:
        self._began: dict[socket.socket | None, float] = {}

    @contextmanager
    def receiving(self, connection: socket.socket | None) -> Iterator[None]:
        """Cut the connection if the block takes longer than SECONDS."""
        self.begin(connection)
        try:
            yield
        finally:
            self.end(connection)

    def begin(self, connection: socket.socket | None) -> None:
        """Note that a request begins to arrive."""
        self._began[connection] = time.monotonic()

    def end(self, connection: socket.socket | None) -> None:
        """Note that the request, or a part of it, has arrived."""
        self._began.pop(connection, None)

    def start(self) -> None:
        """Start the thread that cuts late connections."""
        threading.Thread(target=self._run, name="deadlines", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            oldest = time.monotonic() - SECONDS
            for connection, began in list(self._began.items()):
                if connection and began < oldest:
                    with suppress(OSError):  # the client has just closed it
                        connection.shutdown(socket.SHUT_RD)


DEADLINES = Deadlines()


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn is untyped
    """A gthread worker with a deadline for the head of a request."""

    def init_process(self) -> None:
        """Start the deadlines in the worker process."""
        DEADLINES.start()
        super().init_process()

    def handle(self, conn: TConn) -> Any:
        """Serve one request of a connection. `handle_request` begins when its head has arrived."""
        DEADLINES.begin(conn.sock)
        try:
            return super().handle(conn)
        finally:
            DEADLINES.end(conn.sock)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Respond to a request whose head has arrived."""
        DEADLINES.end(conn.sock)
        return super().handle_request(req, conn)
