"""A TCP proxy that can be silent like a node that is gone (no answer, no FIN, no RST), or reset, or slow."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

PIECE = 65536
POLL_SECONDS = 0.1
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER without time


class SilentProxy:
    """Forwards connections to those that `connect` opens.

    After `silence`, the present connections swallow everything. New connections do so too, until `take_over`, after
    which they are forwarded again, as to a node that has taken over the address. `reset` ends the present connections
    and each new one with RST, until `take_over`. `delay_seconds` makes each piece of data late.
    """

    def __init__(self, connect: Callable[[], socket.socket], listener: socket.socket | None = None) -> None:
        self._connect = connect
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self._is_over = threading.Event()
        self._is_silent = self._resets = False
        self._silenced = threading.Event()
        self.delay_seconds = 0.0
        self._threads = [threading.Thread(target=self._accept)]
        self.host, self.port = self._listener.getsockname()
        self.accepted = 0

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the wait in `accept`
        self._listener.close()
        for thread in self._threads:
            thread.join()

    @property
    def address(self) -> str:
        """The `host:port` on which it listens."""
        return f"{self.host}:{self.port}"

    def silence(self) -> None:
        """Forward nothing more, on present and on new connections."""
        self._is_silent = True
        self._silenced.set()

    def reset(self) -> None:
        """End the present connections and each new one with RST."""
        self._resets = True
        self.silence()

    def take_over(self) -> None:
        """Forward new connections again. The present ones stay silent."""
        self._is_silent = self._resets = False
        self._silenced = threading.Event()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                thread = threading.Thread(target=self._serve, args=(client, self._silenced, self._is_silent))
                self._threads = [*(known for known in self._threads if known.is_alive()), thread]
                thread.start()

    def _serve(self, client: socket.socket, silenced: threading.Event, is_silent: bool) -> None:
        with client:
            if not is_silent:
                with suppress(OSError), self._connect() as server:
                    self._forward(client, server, silenced)
            if self._resets:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            elif silenced.is_set():
                self._swallow(client)

    def _forward(self, client: socket.socket, server: socket.socket, silenced: threading.Event) -> None:
        directions = {client.fileno(): (client, server), server.fileno(): (server, client)}
        poller = _poll(client, server)
        while not (silenced.is_set() or self._is_over.is_set()):
            for file, _ in poller.poll(POLL_SECONDS * 1000):
                if silenced.is_set():
                    return
                source, target = directions[file]
                piece = source.recv(PIECE)
                if not piece:
                    return
                if self.delay_seconds:
                    time.sleep(self.delay_seconds)
                target.sendall(piece)

    def _swallow(self, client: socket.socket) -> None:
        poller = _poll(client)
        with suppress(OSError):
            while not self._is_over.is_set() and not self._resets:
                if poller.poll(POLL_SECONDS * 1000) and not client.recv(PIECE):
                    return


def _poll(*sockets: socket.socket) -> select.poll:
    poller = select.poll()  # a soak has more files than select.select can take
    for each in sockets:
        poller.register(each, select.POLLIN)
    return poller


def connect_unix(path: str) -> socket.socket:
    """Open a connection to a Unix socket."""
    opened = socket.socket(socket.AF_UNIX)
    opened.connect(path)
    return opened
