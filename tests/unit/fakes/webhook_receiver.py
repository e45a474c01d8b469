"""An endpoint that webhooks are sent to: it keeps what came and answers as told."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import stripe

DEADLINE_SECONDS = 5.0


@dataclass
class Receiver:
    """`statuses` are given to the next calls in turn; after them every call gets 200."""

    url: str
    secret: str
    statuses: list[int] = field(default_factory=list)
    received: list[tuple[bytes, str | None]] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def take(self, body: bytes, signature: str | None) -> int:
        with self.arrived:
            self.received.append((body, signature))
            self.arrived.notify_all()
            return self.statuses.pop(0) if self.statuses else 200

    def wait(self, count: int) -> list[tuple[bytes, str | None]]:
        """All that came, once there are `count`."""
        with self.arrived:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while len(self.received) < count and time.monotonic() < deadline:
                self.arrived.wait(deadline - time.monotonic())
            assert len(self.received) == count
            return list(self.received)

    def events(self, count: int) -> list[stripe.Event]:
        """All that came, verified by the SDK; raises its error for a signature that is not good."""
        return [stripe.Webhook.construct_event(body, signature, self.secret) for body, signature in self.wait(count)]


@contextmanager
def receiving(secret: str) -> Iterator[Receiver]:
    receiver = Receiver("", secret)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(receiver.take(body, self.headers.get("Stripe-Signature")))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the test's output is for the test."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}/api/webhooks/stripe"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()
