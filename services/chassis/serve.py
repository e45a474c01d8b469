"""The production server: Granian with one worker process of threads; background work starts after the fork."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from flask import Flask
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from services.chassis import logs
from services.chassis.settings import ProcessSettings

KEEP_ALIVE_MS = 75_000  # longer than any client of ours leaves a connection idle
GRACE_SECONDS = 10
LOGGER = "_granian"  # Granian's own lines
TO_OUR_LOG = {"handlers": {}, "formatters": {}, "loggers": {LOGGER: {"handlers": [], "propagate": True}}}


def serve(settings: ProcessSettings, build: Callable[[], Flask]) -> None:
    """Serve `build()`'s app until SIGTERM, then finish the requests in hand and stop the background work.

    `build` runs in the worker process, after the fork, so that no pool or thread is shared across it.
    """
    logs.configure(settings.service, settings.log_level)
    _refuse_taken_port(settings)
    logging.getLogger(__name__).info("%s listens on port %d", settings.service, settings.port)
    server = MPServer(
        settings.service,
        address=settings.bind,
        port=settings.port,
        interface=Interfaces.WSGI,
        blocking_threads=settings.threads,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=KEEP_ALIVE_MS),
        workers_kill_timeout=GRACE_SECONDS,
        log_level=LogLevels.error,
        log_dictconfig=TO_OUR_LOG,
    )
    multiprocessing.set_start_method("fork", force=True)  # what is built in the worker is sent nowhere
    server.serve(partial(_work, server), target_loader=build, wrap_loader=False)


def _work(server: MPServer, number: int, name: str | None, build: Callable[[], Flask], *given: Any) -> None:
    """What the worker process does: the app and its background work around Granian's own part, which serves."""
    for ending in (signal.SIGTERM, signal.SIGINT):  # Granian's handler, which it inherits, only notes it
        signal.signal(ending, signal.SIG_DFL)
    if server.interrupt_signal:
        return
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    app = build()
    background = app.extensions["background"]
    for part in background:
        part.start()
    try:
        MPServer._spawn_wsgi_worker(number, name, lambda: _whole(app), *given)
    finally:
        for part in reversed(background):
            part.stop()


def _refuse_taken_port(settings: ProcessSettings) -> None:
    """Granian would share the port with whoever has it, if that is another Granian."""
    try:
        socket.create_server((settings.bind, settings.port)).close()
    except OSError as error:
        sys.exit(f"{settings.service} cannot listen on {settings.bind}:{settings.port}: {error.strerror}")


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on serving beside the one that takes its place."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _whole(app: Flask) -> Callable[[dict[str, Any], Callable[..., Any]], list[bytes]]:
    """`app` with its answers as lists: those go out in one write, an iterator's part by part."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        parts: Iterable[bytes] = app(environ, start_response)
        try:
            return list(parts)
        finally:
            parts.close()  # type: ignore[attr-defined]  # werkzeug's, which counts its requests by it

    return answer
