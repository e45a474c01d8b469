"""The production server: Granian with one worker process and its threads. Background work starts after the fork."""

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
from services.chassis.neighbours import Slots
from services.chassis.settings import ProcessSettings
from services.chassis.web import OVERLOADED, UNLOGGED

KEEP_ALIVE_MS = 75_000  # longer than any of the clients keeps a connection idle
GRACE_SECONDS = 10
QUEUE_PER_THREAD = 15  # requests that may wait for each of `settings.threads`
QUEUE_SECONDS = 30.0  # the longest wait, because no client waits longer
HEALTH_THREADS = 4  # for health checks while every other thread waits
LOGGER = "_granian"
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
    logging.getLogger(__name__).info("%s listens on port %d", settings.service, settings.port)
    server = MPServer(
        settings.service,
        address=settings.bind,
        port=settings.port,
        interface=Interfaces.WSGI,
        blocking_threads=settings.threads * (1 + QUEUE_PER_THREAD) + HEALTH_THREADS,  # started when they are needed
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=KEEP_ALIVE_MS),
        workers_kill_timeout=GRACE_SECONDS,
        log_level=LogLevels.error,
        log_dictconfig=LOG_CONFIG,
    )
    multiprocessing.set_start_method("fork", force=True)  # `build` cannot be pickled
    server.serve(partial(_run_worker, server, settings.threads), target_loader=build, wrap_loader=False)


def _run_worker(
    server: MPServer, threads: int, number: int, name: str | None, build: Callable[[], Flask], *options: Any
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
    background = app.extensions["background"]
    for part in background:
        part.start()
    try:
        MPServer._spawn_wsgi_worker(number, name, lambda: limit_requests(_join_body(app), threads), *options)
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


def limit_requests(respond: Respond, threads: int) -> Respond:
    """Let `threads` requests run at once. The others wait in order, except for health and metrics.

    The server has more threads than that, so a health check finds a free one however long the other requests take.
    """
    running = Slots(threads, stalled_seconds=QUEUE_SECONDS)

    def respond_in_turn(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"].startswith(UNLOGGED):
            return respond(environ, start_response)
        if running.waiting >= threads * QUEUE_PER_THREAD or not running.take(QUEUE_SECONDS):
            environ[OVERLOADED] = True
            return respond(environ, start_response)
        try:
            return respond(environ, start_response)
        finally:
            running.release()

    return respond_in_turn


def _join_body(app: Flask) -> Respond:
    """Wrap `app` so that it returns a list. Granian sends a list in one write, but an iterator part by part."""

    def respond(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        parts: Iterable[bytes] = app(environ, start_response)
        try:
            return list(parts)
        finally:
            parts.close()  # type: ignore[attr-defined]  # the iterable of werkzeug, which frees the request in `close`

    return respond
