"""A webhook endpoint that stores requests and returns scripted statuses."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import stripe

from tests.support.http_servers import AnsweringServer, Request

DEADLINE_SECONDS = 5.0


@dataclass
class Receiver:
    """The endpoint. The next calls get `statuses` in turn, all later ones 200."""

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
        """Wait for `count` requests and return them."""
        with self.arrived:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while len(self.received) < count and time.monotonic() < deadline:
                self.arrived.wait(deadline - time.monotonic())
            assert len(self.received) == count
            return list(self.received)

    def events(self, count: int) -> list[stripe.Event]:
        """Wait for `count` requests and return their events. Raises the SDK's error for an invalid signature."""
        return [stripe.Webhook.construct_event(body, signature, self.secret) for body, signature in self.wait(count)]


@contextmanager
def receiving(secret: str) -> Iterator[Receiver]:
    receiver = Receiver("", secret)

    def answer(request: Request) -> tuple[int, bytes]:
        return receiver.take(request.body, request.headers.get("Stripe-Signature")), b""

    with AnsweringServer(answer) as server:
        receiver.url = f"{server.origin}/api/webhooks/stripe"
        yield receiver
