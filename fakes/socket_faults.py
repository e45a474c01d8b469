"""Faults below HTTP: connections that are reset, truncated or refused.

gunicorn passes its socket to the application (`gunicorn.socket`). A close with SO_LINGER 0 makes the kernel send RST.
gunicorn's own close would send FIN first, which a client reads as an orderly end.
"""

import errno
import socket
import struct
import threading
from concurrent.futures import Future
from typing import Any, NoReturn

from gunicorn.workers.gthread import TConn, ThreadWorker

RST_ON_CLOSE = struct.pack("ii", 1, 0)
_worker: list["FaultyWorker"] = []


class Dropped(BrokenPipeError):
    """The connection is closed. gunicorn treats EPIPE as a client that left, and logs nothing."""

    def __init__(self) -> None:
        super().__init__(errno.EPIPE, "dropped by a scripted fault")


def reset(environ: dict[str, Any]) -> NoReturn:
    """Close the connection with RST, without an answer."""
    sock = environ.get("gunicorn.socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        sock.close()
    raise Dropped


def truncate(environ: dict[str, Any], status: str, headers: list[tuple[str, str]], body: bytes) -> NoReturn:
    """Announce the whole body, send half of it, and close the connection."""
    sock = environ.get("gunicorn.socket")
    if sock is not None:
        kept = [(k, v) for k, v in headers if k.lower() != "content-length"]
        head = "".join(f"{k}: {v}\r\n" for k, v in [*kept, ("Content-Length", str(len(body)))])
        sock.sendall(f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + body[: len(body) // 2])
        sock.close()
    raise Dropped


def refuse(ms: int) -> None:
    """Refuse new connections to the port for `ms` milliseconds. Has no effect outside gunicorn."""
    for worker in _worker:
        worker.method_queue.defer(worker.close_port, ms)


class FaultyWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn is untyped
    """A gthread worker whose port can be closed for a while, and whose sockets may already be closed."""

    worker_connections: int  # an attribute of gunicorn, 0 while the port is closed

    def init_process(self) -> None:
        _worker[:] = [self]
        super().init_process()

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        if conn.sock.fileno() == -1:  # a fault closed it, and a second close would count it twice
            self.nr_conns -= 1
            return
        super().finish_request(conn, fs)

    def close_port(self, ms: int) -> None:
        """Close the port for `ms` milliseconds. A second call while it is closed has no effect.

        shutdown() ends LISTEN but keeps the port, so that connects get RST.
        """
        if self.worker_connections == 0:
            return
        self.worker_connections = 0  # so that the worker's loop does not accept again
        self.set_accept_enabled(False)
        self.murder_keepalived(force=True)
        for listener in self.sockets:
            listener.sock.shutdown(socket.SHUT_RD)
        timer = threading.Timer(ms / 1000, self.method_queue.defer, [self.open_port])
        timer.daemon = True
        timer.start()

    def open_port(self) -> None:
        for listener in self.sockets:
            listener.sock.listen(self.cfg.backlog)
        self.worker_connections = self.cfg.worker_connections
        self.set_accept_enabled(True)
