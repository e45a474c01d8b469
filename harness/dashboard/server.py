"""Serves the page and its state on the loopback. The page loads nothing from other hosts."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from harness.dashboard.watch import Watch
from harness.runtime import ports
from harness.runtime.compose import ROOT

PAGE = Path(__file__).parent / "page.html"
ICON = ROOT / "clients" / "web" / "icon.svg"
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src 'self'; "
)
POLICY += "frame-ancestors 'none'"
PROTECTION = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}


class Server:
    """An HTTP server of the page at `url`."""

    def __init__(self, watch: Watch, port: int) -> None:
        self._http = ThreadingHTTPServer((ports.HOST, port), _build_handler(watch))
        self._thread = threading.Thread(target=self._http.serve_forever, name="page", kwargs={"poll_interval": 0.1})
        self.url = f"http://{ports.HOST}:{self._http.server_port}"

    def start(self) -> None:
        """Start to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop to serve."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def _build_handler(watch: Watch) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/":
                self._respond(PAGE.read_bytes(), "text/html; charset=utf-8")
            elif self.path == "/icon.svg":
                self._respond(ICON.read_bytes(), "image/svg+xml")
            elif self.path == "/state":
                self._respond(watch.latest, "application/json")
            else:
                self.send_error(404)

        def _respond(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
            for name, value in {**headers, **PROTECTION}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing, to keep the terminal readable."""

    return Handler
