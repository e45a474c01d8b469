"""An HTTP server of the test process that records each request. The test chooses the answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Request:
    """A request that arrived."""

    path: str
    headers: Message
    body: bytes


Answer = Callable[[Request], tuple[int, bytes]]  # status and body


def answer_success(_: Request) -> tuple[int, bytes]:
    """Answer with an empty success envelope."""
    return 200, b'{"success": true, "data": {}}'


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # connections that may arrive at once


class AnsweringServer:
    """Answers every request of the block, by default with success, and records it."""

    def __init__(self, answer: Answer = answer_success) -> None:
        self.requests: list[Request] = []
        self._server = _Server(("127.0.0.1", 0), self._make_handler(answer))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.port: int = self._server.server_port
        self.origin = f"http://127.0.0.1:{self.port}"

    def _make_handler(self, answer: Answer) -> type[BaseHTTPRequestHandler]:
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # keeps connections open

            def _answer(self) -> None:
                sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                requests.append(request := Request(self.path, self.headers, sent))
                status, body = answer(request)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = _answer  # noqa: N815 - the names of http.server

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        return Handler

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
