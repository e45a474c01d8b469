"""`python -m fakes.kong` serves KONG_DECLARATIVE_CONFIG on BIND:PORT.

It has one worker, because rate limits are counted in memory. As in Kong, KONG_ERROR_TEMPLATE_JSON is the template of
refusals, and KONG_STATUS_LISTEN (host:port) is the address of the status API.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

from fakes.kong.declarative import ConfigError, load
from fakes.kong.gateway import Gateway
from fakes.kong.refusals import Templates

THREADS = 512  # each waits for one upstream answer, or for a client. They start on demand.


def log(level: str, correlation_id: str, message: str) -> None:
    """Write one JSON line to stdout in one call, so that lines of several threads do not mix."""
    line = {
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": level,
        "service": "api-gateway",
        "correlation_id": correlation_id,
        "message": message,
    }
    with suppress(BrokenPipeError):  # the reader of stdout has gone, and requests do not depend on it
        os.write(1, json.dumps(line, ensure_ascii=False).encode() + b"\n")


class Status(BaseHTTPRequestHandler):
    """The part of Kong's status API that health checks use: /status and /status/ready."""

    def do_GET(self) -> None:
        """Return 200, because the configuration is already served."""
        known = self.path in ("/status", "/status/ready")
        body = b'{"message":"ready"}' if known else b'{"message":"Not found"}'
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing, because health checks are frequent."""


def serve_status(listen: str) -> None:
    """Serve the status API on `listen` (host:port) in a thread."""
    host, _, port = listen.rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Status)
    threading.Thread(target=server.serve_forever, name="status", daemon=True).start()


class Server(BaseApplication):  # type: ignore[misc] # gunicorn has no types
    """gunicorn with the gateway as its application."""

    def __init__(self, gateway: Gateway, env: Mapping[str, str]) -> None:
        self._gateway = gateway
        self._env = env
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's options from the environment, never from files or the command line."""
        settings: dict[str, Any] = {
            "bind": f"{self._env.get('BIND', '127.0.0.1')}:{self._env.get('PORT', '8000')}",
            "worker_class": "fakes.kong.receiving.Worker",
            "workers": 1,
            "threads": THREADS,
            "worker_connections": 4096,
            "keepalive": 75,  # seconds, as in nginx
            "graceful_timeout": 10,
            "forwarded_allow_ips": "",  # as Kong without trusted_ips: no client can set the scheme
            "permit_unconventional_http_method": True,
            "loglevel": "warning",
            "control_socket_disable": True,
            "post_worker_init": lambda _worker: self._start_threads(),
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def _start_threads(self) -> None:
        """Start what needs a thread of the worker process."""
        self._gateway.start_checks()
        status = self._env.get("KONG_STATUS_LISTEN", "off")
        if status != "off":
            serve_status(status)

    def load(self) -> Gateway:
        """Return the WSGI application."""
        return self._gateway


def main(env: Mapping[str, str]) -> int:
    """Serve until SIGTERM. Returns 1, with one line on stderr, for an invalid configuration."""
    template = env.get("KONG_ERROR_TEMPLATE_JSON")
    try:
        if not env.get("KONG_DECLARATIVE_CONFIG"):
            raise ConfigError("KONG_DECLARATIVE_CONFIG is not set. Set it to the path of the rendered kong.yml")
        config = load(Path(env["KONG_DECLARATIVE_CONFIG"]))
        gateway = Gateway(config, Templates.read(Path(template) if template else None), log)
    except (ConfigError, ValueError, OSError) as error:
        print(f"fakes.kong: {error}", file=sys.stderr)
        return 1
    Server(gateway, env).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
