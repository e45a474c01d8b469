"""How neighbours are asked over HTTP, against a server that says what a test has it say."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from harness.runtime import ports
from services.chassis.clients import HttpPeer, PooledTransport
from services.chassis.errors import ConfigurationError, Unknown
from services.chassis.tokens import Credential

pytestmark = pytest.mark.unit

SECONDS = 5.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n"


class Server:
    """Takes connections one after another; each answers as many requests as it has answers, and is closed then."""

    def __init__(self, *connections: list[bytes]) -> None:
        self._listening = socket.create_server((ports.HOST, 0))
        self._connections = connections
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.origin = f"http://{ports.HOST}:{self._listening.getsockname()[1]}"
        self.asked: list[bytes] = []
        self.closed = threading.Event()
        self.over = threading.Event()

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # whoever accepts has nobody to wait for any more
        self._listening.close()
        self._thread.join(SECONDS)

    def _run(self) -> None:
        with suppress(OSError):
            for answers in self._connections:
                connection, _ = self._listening.accept()
                with connection:
                    self._answer(connection, answers)
                self.closed.set()

    def _answer(self, connection: socket.socket, answers: list[bytes]) -> None:
        for answer in answers:
            self.asked.append(connection.recv(65536))
            connection.sendall(answer)
        if not answers:
            self.asked.append(connection.recv(65536))
            self.over.wait(SECONDS)


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    """Makes servers, which end with the test."""
    made: list[Server] = []

    def make(*connections: list[bytes]) -> Server:
        made.append(Server(*connections))
        return made[-1].__enter__()

    yield make
    for each in made:
        each.__exit__()


def get(transport: PooledTransport, origin: str, timeout: float = SECONDS) -> tuple[int, bytes]:
    return transport("GET", f"{origin}/x", None, {"Accept": "application/json"}, timeout)


Servers = Callable[..., Server]


def test_connection_is_kept_for_the_next_request(server: Servers) -> None:
    at, ask = server([OK, CHUNKED, b"HTTP/1.1 304 Not Modified\r\n\r\n", OK]), PooledTransport()
    assert [get(ask, at.origin) for _ in range(4)] == [(200, b"hi"), (200, b"hi"), (304, b""), (200, b"hi")]


def test_request_is_one_write_and_a_get_after_it_has_no_body(server: Servers) -> None:
    at, ask = server([OK, OK, OK]), PooledTransport()
    ask("PATCH", f"{at.origin}/orders/1", b'{"a":1}', {"X-Correlation-ID": "c"}, SECONDS)
    get(ask, at.origin)
    ask("POST", f"{at.origin}/orders", b"{}", {}, SECONDS)
    lines = [request.split(b"\r\n") for request in at.asked]
    assert [request[0].rpartition(b" ")[0] for request in lines] == [b"PATCH /orders/1", b"GET /x", b"POST /orders"]
    assert {b"X-Correlation-ID: c", b"Content-Length: 7"} <= set(lines[0])
    assert [request[-1] for request in lines] == [b'{"a":1}', b"", b"{}"]


def test_connection_that_the_server_has_closed_meanwhile_is_not_used(server: Servers) -> None:
    at, ask = server([OK], [OK]), PooledTransport()
    get(ask, at.origin)
    assert at.closed.wait(SECONDS)
    assert get(ask, at.origin) == (200, b"hi")


@pytest.mark.parametrize(
    "answers", [[b""], [OK[:20]], [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"], [b"what?\r\n\r\n"]]
)
def test_half_an_answer_is_none_and_nothing_is_asked_again(server: Servers, answers: list[bytes]) -> None:
    at = server(answers, [b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + b'{"data":{}}'])
    peer = HttpPeer("Order", at.origin, Credential("event-service", "s" * 32))
    with pytest.raises(Unknown):
        peer.post("/orders", key="k")
    assert len(at.asked) == 1
    assert peer.get("/orders/1") == {}


def test_silence_ends_in_time(server: Servers) -> None:
    at = server([])
    with pytest.raises(TimeoutError):
        get(PooledTransport(), at.origin, timeout=0.05)


def test_nobody_there_is_no_answer() -> None:
    (port,) = ports.claim([20_600])
    with pytest.raises(ConnectionError):
        get(PooledTransport(), f"http://{ports.HOST}:{port}")
    ports.release([port])


def test_redirect_is_an_answer_and_a_proxy_of_the_environment_is_not_asked(
    server: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    at = server([b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n", OK])
    assert get(PooledTransport(), at.origin) == (302, b"")


def test_threads_share_what_is_kept(server: Servers) -> None:
    at, ask, answers = server([OK] * 3), PooledTransport(), []
    for _ in range(3):
        thread = threading.Thread(target=lambda: answers.append(get(ask, at.origin)))
        thread.start()
        thread.join(SECONDS)
    assert answers == [(200, b"hi")] * 3


def test_address_that_is_no_http_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match="not an address of Order"):
        HttpPeer("Order", "order-service:5001", Credential("event-service", "s" * 32))
