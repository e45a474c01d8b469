"""The production server: gunicorn with one worker process of threads; background work starts after the fork."""

from __future__ import annotations

import logging
import select
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.http import wsgi
from gunicorn.workers.gthread import ThreadWorker

from services.chassis import logs
from services.chassis.settings import ProcessSettings

KEEP_ALIVE_SECONDS = 75  # longer than any client of ours leaves a connection idle
GRACE_SECONDS = 10
LINGER_MS = 20  # a thread waits this long for its connection's next request


class _RootLogger(Logger):  # type: ignore[misc]
    """gunicorn's own lines, through the process's JSON log."""

    def setup(self, cfg: Any) -> None:
        self.error_log.propagate = True
        self.access_log.propagate = False


class Answer(wsgi.Response):  # type: ignore[misc]
    """Head and body in one write: on the way to a neighbour each write wakes its reader."""

    headers_sent: bool
    _head = b""

    def send_headers(self) -> None:
        if self.chunked:
            super().send_headers()
        elif not self.headers_sent:
            lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers)]
            self._head, self.headers_sent = f"{''.join(lines)}\r\n".encode("latin-1"), True

    def _emit_body(self, data: bytes) -> None:
        super()._emit_body(self._taken_head() + data)

    def close(self) -> None:
        super().close()
        if self._head:
            self.sock.sendall(self._taken_head())

    def _taken_head(self) -> bytes:
        head, self._head = self._head, b""
        return head


class _Worker(ThreadWorker):  # type: ignore[misc]
    """gthread without what we have no use for, whose threads stay with a connection while it is in use.

    After each answer gthread hands the connection back to its main thread, and gets it back from there with the next
    request; those switches of thread cost as much as the request. Our callers keep their connections busy.
    """

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Answer one request. True when another may come on this connection."""
        answer, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg, Answer)
        environ["wsgi.multithread"] = True
        if not self.alive or len(self.keepalived_conns) >= self.max_keepalived:
            answer.force_close()
        parts = self.wsgi(environ, answer.start_response)
        try:
            for part in parts:
                answer.write(part)
            answer.close()
        finally:
            parts.close()
        return not answer.should_close()

    def handle(self, conn: Any) -> Any:
        again = super().handle(conn)
        while again is True and self._has_more(conn):
            again = super().handle(conn)
        return again

    def _has_more(self, conn: Any) -> bool:
        """True when the next request has come. Nobody lingers while others wait for a thread."""
        if not self.alive or self.tpool._work_queue.qsize() or conn.parser.unreader.buf.getvalue():
            return False
        poller = select.poll()
        poller.register(conn.sock, select.POLLIN)
        return bool(poller.poll(LINGER_MS))


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: ProcessSettings, build: Callable[[], Flask]) -> None:
        self._settings = settings
        self._build = build
        super().__init__()

    def load_config(self) -> None:
        options = {
            "bind": f"{self._settings.bind}:{self._settings.port}",
            "workers": 1,
            "worker_class": _Worker,
            "threads": self._settings.threads,
            "keepalive": KEEP_ALIVE_SECONDS,
            "graceful_timeout": GRACE_SECONDS,
            "logger_class": _RootLogger,
            "worker_exit": lambda _server, worker: _stop(worker.wsgi),
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        app = self._build()
        for background in app.extensions["background"]:
            background.start()
        return app


def _stop(app: Flask | None) -> None:
    if app is None:
        return
    for background in reversed(app.extensions["background"]):
        background.stop()


def serve(settings: ProcessSettings, build: Callable[[], Flask]) -> None:
    """Serve `build()`'s app until SIGTERM, then finish the requests in hand and stop the background work.

    `build` runs in the worker process, after the fork, so that no pool or thread is shared across it.
    """
    logs.configure(settings.service, settings.log_level)
    logging.getLogger(__name__).info("%s listens on port %d", settings.service, settings.port)
    _Server(settings, build).run()
