"""Run a fake in gunicorn. It has one worker, because the state is in its memory."""

import logging
import os
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication

from fakes import logs

THREADS = 64  # a hanging call occupies one

WsgiApp = Callable[..., Any]


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn is untyped
    def __init__(self, address: str, build: Callable[[], WsgiApp]) -> None:
        self.address, self.build = address, build
        super().__init__()

    def load_config(self) -> None:
        settings = {
            "bind": self.address,
            "workers": 1,
            "threads": THREADS,
            "worker_class": "fakes.socket_faults.FaultyWorker",
            "logger_class": "fakes.logs.GunicornLogger",
            "keepalive": 75,  # seconds. A shorter time would close idle pooled connections just before their next call
            "graceful_timeout": 1,
            "control_socket_disable": True,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> WsgiApp:
        """Build the app in the worker, so that the fake's threads share its process with its state."""
        return self.build()


def serve(service: str, default_port: int, build: Callable[[], WsgiApp]) -> None:
    """Serve on BIND:PORT (default 0.0.0.0) until SIGTERM."""
    logs.configure(service)
    address = f"{os.environ.get('BIND', '0.0.0.0')}:{os.environ.get('PORT', default_port)}"  # noqa: S104 for containers
    logging.getLogger(service).info("listening on %s", address)
    Server(address, build).run()
