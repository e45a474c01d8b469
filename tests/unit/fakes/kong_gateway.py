"""The fake Kong in this process, with a small upstream server behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from werkzeug.test import Client, TestResponse

from fakes.kong.declarative import load
from fakes.kong.gateway import Gateway
from fakes.kong.refusals import Templates
from services.chassis.keys import SigningKey
from services.gateway import render
from tests.support.service_settings import USER_KEY, key_environment

KEYS = {"USER_PUBLIC_KEYS": key_environment("user-service")["USER_PUBLIC_KEYS"]}
TEMPLATE = Path(render.__file__).with_name("error_template.json")


class Upstream(BaseHTTPRequestHandler):
    """Stores each request and returns the response of the test."""

    protocol_version = "HTTP/1.1"
    server: Any

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.server.seen.append((self.command, self.path, self.headers, self.rfile.read(length)))
        self.server.ready.wait(5)
        status, headers, body = self.server.reply
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_GET = do_POST = do_HEAD = do_OPTIONS = do_PATCH = answer  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def upstream_server() -> Iterator[Any]:
    """Serve as all services. `seen` has (method, path, headers, body). `reply` is the response, once `ready` is set."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # some tests make the gateway disconnect
    server.seen = []
    server.ready = threading.Event()
    server.ready.set()
    server.reply = (200, [("Content-Type", "application/json")], b'{"success": true}')
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def render_config(upstream: Any) -> dict[str, Any]:
    """Render the project's configuration with every service at `upstream`."""
    address = f"http://127.0.0.1:{upstream.server_port}"
    env = {**KEYS, "USER_SERVICE_URL": address, "EVENT_SERVICE_URL": address, "ORCHESTRATOR_URL": address}
    loaded: dict[str, Any] = yaml.load(render.render(env), yaml.CSafeLoader)
    return loaded


def set_targets(config: dict[str, Any], *targets: str) -> None:
    """Put other targets behind the orchestrator's upstream."""
    config["upstreams"][2]["targets"] = [{"target": target} for target in targets]


class KongClient:
    """A client of the gateway. The first call builds it, so a test can edit `config` before."""

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        self._config = config
        self._file = folder / "kong.yml"
        self._client: Client | None = None
        self.lines: list[tuple[str, str, str]] = []  # level, correlation id, message

    def _log(self, level: str, correlation_id: str, message: str) -> None:
        self.lines.append((level, correlation_id, message))

    def __call__(self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> TestResponse:
        """Call with a raw `path`. `client` is the caller's address."""
        if self._client is None:
            self._file.write_text(yaml.dump(self._config, Dumper=yaml.CSafeDumper))
            gateway = Gateway(load(self._file), Templates.read(TEMPLATE), self._log)
            gateway.start_checks()
            self._client = Client(gateway)
        overrides = {"REMOTE_ADDR": more.pop("client", "127.0.0.1"), "RAW_URI": path}
        plain = path.partition("?")[0]
        return self._client.open(plain, method=method, headers=headers, environ_overrides=overrides, **more)


def token(key: SigningKey = USER_KEY, **changes: Any) -> str:
    """Make a user's token without the claims that `changes` sets to None."""
    claims = {"iss": "ticketremaster", "sub": "u", "type": "access", "exp": int(time.time()) + 60, **changes}
    return key.sign({name: value for name, value in claims.items() if value is not None})


def bearer(text: str | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {text or token()}"}


def plugin(holder: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the editable configuration of a plugin."""
    found: dict[str, Any] = next(entry["config"] for entry in holder["plugins"] if entry["name"] == name)
    return found
