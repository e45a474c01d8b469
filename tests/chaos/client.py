"""A client of the gateway that records every call, and repeats a request until it has a final answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import urllib3

from harness.api_client import Api, ApiResponse
from harness.dev.spec_bundle import bundle
from services.chassis import correlation
from services.contracts.errors import ErrorCode
from tests.chaos.ledger import Call, Ledger, Wait
from tests.contract.exchanges import Contract, Exchange

T = TypeVar("T")
PAUSE_SECONDS = 0.2  # between two tries of a request
NO_ANSWER = 0
LOST = frozenset((NO_ANSWER, 502, 503, 504))  # the request may have happened or not
BUSY = ErrorCode.REQUEST_IN_PROGRESS


class Unanswered(Exception):
    """A request got no final answer before the deadline of the run."""


class Final(NamedTuple):
    """A final answer, and the number of requests that it took."""

    answer: ApiResponse
    tries: int

    @property
    def is_done(self) -> bool:
        """Whether the request happened."""
        return self.answer.status < 300

    @property
    def is_doubtful(self) -> bool:
        """Whether an earlier try or an undone saga can have changed what a refusal is about."""
        return self.tries > 1 or self.answer.status >= 500


@dataclass
class Book:
    """Shared by all clients of a run: the ledger, the spec, and the moment after which they give up."""

    ledger: Ledger
    gives_up_at: float = float("inf")  # seconds of the monotonic clock
    _contract: Contract = field(default_factory=lambda: Contract(bundle("gateway")))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, call: Call, exchange: Exchange | None) -> None:
        """Add a call. The spec must allow an answer of a quiet time."""
        self.ledger.calls.append(call)
        if exchange and self.ledger.is_quiet(call):
            with self._lock:
                self.ledger.wrong_answers += self._contract.violations(exchange)


@dataclass
class Client(Api):
    """One person at the gateway."""

    book: Book = field(default_factory=lambda: Book(Ledger()))
    phone: str = ""

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> ApiResponse:
        """Send one request and record it. A lost connection gives status 0."""
        began, clock = time.time(), time.perf_counter()
        try:
            answer = super().call(method, path, body, headers, token)
        except urllib3.exceptions.HTTPError:
            answer = ApiResponse(NO_ANSWER, b"{}", {})
        code = answer.error_code if answer.status >= 400 else None
        took, name = time.perf_counter() - clock, f"{method} {path}"
        call = Call(began, took, name, answer.status, code, answer.headers.get(correlation.HEADER))
        plain = urlsplit(path).path
        exchange = Exchange("gateway", method, plain, answer.status, answer.headers, answer.body)
        self.book.record(call, exchange if answer.status else None)
        return answer

    def ask(self, what: str, send: Callable[[], T]) -> T:
        """Call a fake as a person's phone or browser does, and repeat that until it answers. Raises Unanswered."""
        while time.monotonic() < self.book.gives_up_at:
            with suppress(urllib3.exceptions.HTTPError):
                return send()
            time.sleep(PAUSE_SECONDS)
        self.book.ledger.unanswered.append(what)
        raise Unanswered(what)

    def insist(self, what: str, send: Callable[[], ApiResponse]) -> Final:
        """Repeat `send` until the answer is final. Raises Unanswered at the deadline of the run."""
        tries, first = 1, time.time()
        while (answer := send()).status in LOST or answer.error_code == BUSY:
            if answer.error_code == BUSY:
                self.book.ledger.busy.append((first, time.time()))
            if time.monotonic() > self.book.gives_up_at:
                self.book.ledger.unanswered.append(f"{what}: {answer.status} {answer.error_code}")
                raise Unanswered(what)
            time.sleep(PAUSE_SECONDS)
            tries += 1
        self.book.ledger.waits.append(Wait(what, first, time.time() - first, tries))
        return Final(answer, tries)
