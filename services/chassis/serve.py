"""The production server: Granian with one worker process and its threads. Background work starts after the fork."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from io import BytesIO
from typing import Any

from flask import Flask
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from services.chassis import logs
from services.chassis.errors import Refused, Unknown
from services.chassis.neighbours import Slots
from services.chassis.settings import ProcessSettings
from services.chassis.stalled_connections import TICK_SECONDS, StalledConnections
from services.chassis.web import MAX_BODY_BYTES, REFUSAL, UNLOGGED
from services.chassis.worker import Worker
from services.contracts.errors import ErrorCode

KEEP_ALIVE_MS = 75_000  # longer than any of the clients keeps a connection idle
GRACE_SECONDS = 10
QUEUE_PER_THREAD = 15  # requests that may wait for each of `settings.threads`
BODY_SECONDS = 10.0  # a request that has not arrived by then is cut
MAX_DRAINED_BYTES = 1024 * 1024  # the limit of the gateway
QUEUE_SECONDS = 30.0  # the longest wait, because no client waits longer
HEALTH_THREADS = 4  # for health checks while every other thread waits
LOGGER = "_granian"
TOO_MANY = "Too many requests wait. Try again shortly."
BODY_TOO_LATE = f"The request body did not arrive within {BODY_SECONDS:g} seconds. Send it again."
Respond = Callable[[dict[str, Any], Callable[..., Any]], list[bytes]]
LOG_CONFIG = {  # sends the lines of Granian to the root logger
    "handlers": {},
    "formatters": {},
    "loggers": {LOGGER: {"handlers": [], "propagate": True}},
}


def serve(settings: ProcessSettings, build: Callable[[], Flask]) -> None:
    """Serve the app of `build()` until SIGTERM. Then finish the current requests and stop the background work.

    `build` runs in the worker process after the fork, so that the processes share no pool and no thread.
    """
    logs.configure(settings.service, settings.log_level)
    _refuse_taken_port(settings)
    logging.getLogger(__name__).info("%s starts on port %d", settings.service, settings.port)
    server = MPServer(
        settings.service,
        address=settings.bind,
        port=settings.port,
        interface=Interfaces.WSGI,
        blocking_threads=settings.threads * (1 + 2 * QUEUE_PER_THREAD) + HEALTH_THREADS,  # started when needed
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=KEEP_ALIVE_MS),
        workers_kill_timeout=GRACE_SECONDS,
        log_level=LogLevels.error,
        log_dictconfig=LOG_CONFIG,
    )
    multiprocessing.set_start_method("fork", force=True)  # `build` cannot be pickled
    server.serve(partial(_run_worker, server, settings), target_loader=build, wrap_loader=False)


def _run_worker(
    server: MPServer,
    settings: ProcessSettings,
    number: int,
    name: str | None,
    build: Callable[[], Flask],
    *options: Any,
) -> None:
    """Run the worker process: build the app, start its background work, and let Granian serve it.

    Granian has no public hook at the end of a worker, so this wraps the private method that serves.
    """
    for ending in (signal.SIGTERM, signal.SIGINT):  # the inherited handler of Granian would only set a flag
        signal.signal(ending, signal.SIG_DFL)
    if server.interrupt_signal:
        return
    threading.Thread(target=_exit_with_parent, name="exit-with-parent", daemon=True).start()
    app = build()
    requests = Requests(_join_body(app), settings.threads)
    stalled = StalledConnections(settings.port, BODY_SECONDS, requests.has_older_than(BODY_SECONDS))
    background = [*app.extensions["background"], Worker("stalled connections", stalled.tick, TICK_SECONDS)]
    for part in background:
        part.start()
    try:
        MPServer._spawn_wsgi_worker(number, name, lambda: requests, *options)
    finally:
        for part in reversed(background):
            part.stop()


def _refuse_taken_port(settings: ProcessSettings) -> None:
    """Exit if another process listens on the port. Granian would share the port with another Granian."""
    try:
        socket.create_server((settings.bind, settings.port)).close()
    except OSError as error:
        sys.exit(f"{settings.service} cannot listen on {settings.bind}:{settings.port}: {error.strerror}")


def _exit_with_parent() -> None:
    """Exit when the parent dies. Otherwise this worker would serve in parallel with its replacement."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class Requests:
    """Lets `threads` requests run at once. The others wait in order, except for health and metrics.

    The server has more threads than that, so a health check finds a free one however long the other requests take.
    A request waits until its whole body has arrived, so that a client who is late with it occupies no place.
    """

    def __init__(self, respond: Respond, threads: int) -> None:
        self._respond = respond
        self._running = Slots(threads, stalled_seconds=QUEUE_SECONDS)
        self._most = threads * QUEUE_PER_THREAD
        self._bodies = Slots(self._most)
        self._began: dict[int, float] = {}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        """Respond to one request."""
        if environ["PATH_INFO"].startswith(UNLOGGED):
            return self._respond(environ, start_response)
        if _has_body(environ) and not self._receive(environ):
            return self._respond(environ, start_response)
        self._began[id(environ)] = time.monotonic()
        try:
            return self._respond_in_turn(environ, start_response)
        finally:
            del self._began[id(environ)]

    def has_older_than(self, seconds: float) -> Callable[[], bool]:
        """Return a check for a request that is complete but has had no response for `seconds`."""
        return lambda: any(time.monotonic() - began > seconds for began in list(self._began.values()))

    def _respond_in_turn(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if self._running.waiting >= self._most or not self._running.take(QUEUE_SECONDS):
            environ[REFUSAL] = Unknown(TOO_MANY)
            return self._respond(environ, start_response)
        try:
            return self._respond(environ, start_response)
        finally:
            self._running.release()

    def _receive(self, environ: dict[str, Any]) -> bool:
        """Read the body. False, with the reason in `environ`, if it is not complete."""
        if not self._bodies.take(0.0):
            environ[REFUSAL] = Unknown(TOO_MANY)
            return False
        try:
            is_complete = _read_body(environ)
        finally:
            self._bodies.release()
        if not is_complete:
            environ[REFUSAL] = Refused(ErrorCode.VALIDATION_ERROR, BODY_TOO_LATE)
        return is_complete


def _has_body(environ: dict[str, Any]) -> bool:
    return environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ


def _read_body(environ: dict[str, Any]) -> bool:
    """Read the body into memory. False if the client has not sent all of it.

    The rest of a body that is too large is read and dropped. Closing with unread bytes resets the connection, and the
    response is lost.
    """
    source, began = environ["wsgi.input"], time.monotonic()
    try:
        body = source.read(MAX_BODY_BYTES + 1)
        left = MAX_DRAINED_BYTES if len(body) > MAX_BODY_BYTES else 0
        while left > 0 and (dropped := source.read(min(left, MAX_BODY_BYTES))):
            left -= len(dropped)
    except OSError:
        return False
    environ["wsgi.input"] = BytesIO(body)
    if time.monotonic() - began > BODY_SECONDS:
        return False  # Granian returns a cut chunked body as if it were complete
    return len(body) >= min(int(environ.get("CONTENT_LENGTH", 0)), MAX_BODY_BYTES)


def _join_body(app: Flask) -> Respond:
    """Wrap `app` so that it returns a list. Granian sends a list in one write, but an iterator part by part."""

    def respond(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        parts: Iterable[bytes] = app(environ, start_response)
        try:
            return list(parts)
        finally:
            parts.close()  # type: ignore[attr-defined]  # the iterable of werkzeug, which frees the request in `close`

    return respond
