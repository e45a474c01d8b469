"""PooledTransport with a server whose responses each test defines."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from harness.runtime import ports
from services.chassis.clients import HttpPeer
from services.chassis.errors import ConfigurationError, Unknown
from services.chassis.http_transport import PooledTransport
from tests.support.service_settings import make_credential

pytestmark = pytest.mark.unit

SECONDS = 5.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n"


class Server:
    """Accepts connections one after another. Each sends its list of responses and is then closed."""

    def __init__(self, *connections: list[bytes]) -> None:
        self._listening = socket.create_server((ports.HOST, 0))
        self._connections = connections
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.origin = f"http://{ports.HOST}:{self._listening.getsockname()[1]}"
        self.requests: list[bytes] = []
        self.closed = threading.Event()
        self.over = threading.Event()

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # ends the wait in `accept`
        self._listening.close()
        self._thread.join(SECONDS)

    def _run(self) -> None:
        with suppress(OSError):
            for answers in self._connections:
                connection, _ = self._listening.accept()
                with connection:
                    self._respond(connection, answers)
                self.closed.set()

    def _respond(self, connection: socket.socket, answers: list[bytes]) -> None:
        for answer in answers:
            self.requests.append(connection.recv(65536))
            connection.sendall(answer)
        if not answers:
            self.requests.append(connection.recv(65536))
            self.over.wait(SECONDS)


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    """A factory of servers that end with the test."""
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


def test_connection_is_reused_for_the_next_request(server: Servers) -> None:
    at, transport = server([OK, CHUNKED, b"HTTP/1.1 304 Not Modified\r\n\r\n", OK]), PooledTransport()
    assert [get(transport, at.origin) for _ in range(4)] == [(200, b"hi"), (200, b"hi"), (304, b""), (200, b"hi")]


def test_request_is_one_write_and_a_later_get_has_no_body(server: Servers) -> None:
    at, transport = server([OK, OK, OK]), PooledTransport()
    transport("PATCH", f"{at.origin}/orders/1", b'{"a":1}', {"X-Correlation-ID": "c"}, SECONDS)
    get(transport, at.origin)
    transport("POST", f"{at.origin}/orders", b"{}", {}, SECONDS)
    lines = [request.split(b"\r\n") for request in at.requests]
    assert [request[0].rpartition(b" ")[0] for request in lines] == [b"PATCH /orders/1", b"GET /x", b"POST /orders"]
    assert {b"X-Correlation-ID: c", b"Content-Length: 7"} <= set(lines[0])
    assert [request[-1] for request in lines] == [b'{"a":1}', b"", b"{}"]


def test_connection_closed_by_the_server_is_not_reused(server: Servers) -> None:
    at, transport = server([OK], [OK]), PooledTransport()
    get(transport, at.origin)
    assert at.closed.wait(SECONDS)
    assert get(transport, at.origin) == (200, b"hi")


@pytest.mark.parametrize(
    "answers", [[b""], [OK[:20]], [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"], [b"what?\r\n\r\n"]]
)
def test_incomplete_response_is_unknown_without_a_retry(server: Servers, answers: list[bytes]) -> None:
    at = server(answers, [b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + b'{"data":{}}'])
    peer = HttpPeer("Order", at.origin, make_credential("event-service", "order-service"))
    with pytest.raises(Unknown):
        peer.post("/orders", key="k")
    assert len(at.requests) == 1
    assert peer.get("/orders/1") == {}


def test_silent_server_ends_in_a_timeout(server: Servers) -> None:
    at = server([])
    with pytest.raises(TimeoutError):
        get(PooledTransport(), at.origin, timeout=0.05)


def test_refused_connection_is_a_connection_error() -> None:
    (port,) = ports.claim([20_600])
    with pytest.raises(ConnectionError):
        get(PooledTransport(), f"http://{ports.HOST}:{port}")
    ports.release([port])


def test_redirects_and_proxy_variables_are_not_followed(server: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    at = server([b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n", OK])
    assert get(PooledTransport(), at.origin) == (302, b"")


def test_threads_share_idle_connections(server: Servers) -> None:
    at, transport, answers = server([OK] * 3), PooledTransport(), []
    for _ in range(3):
        thread = threading.Thread(target=lambda: answers.append(get(transport, at.origin)))
        thread.start()
        thread.join(SECONDS)
    assert answers == [(200, b"hi")] * 3


def test_address_without_http_prevents_the_start() -> None:
    with pytest.raises(ConfigurationError, match="not an address of Order"):
        HttpPeer("Order", "order-service:5001", make_credential("event-service", "order-service"))
