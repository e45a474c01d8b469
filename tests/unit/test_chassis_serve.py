"""The production server as a process: threads stay with busy connections, and nobody waits for them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from harness import ports
from harness.process import wait_for
from services.chassis.serve import Answer

pytestmark = pytest.mark.unit

APP = """
import sys
from services.chassis import access, serve, web
from services.chassis.settings import ProcessSettings

settings = ProcessSettings("served", int(sys.argv[1]), "127.0.0.1", "s" * 32, "i" * 32, "INFO", threads=1)

def build():
    app = web.create_app(settings, checks={})

    @app.get("/hello")
    @access.public
    def hello():
        return web.ok("hello")

    return web.finish(app)

serve.serve(settings, build)
"""
LENGTH = ("Content-Length", "2")
HELLO = b"GET /hello HTTP/1.1\r\nHost: served\r\n\r\n"


def connected(port: int) -> socket.socket:
    """A connection; its reads wait five seconds at most."""
    return socket.create_connection((ports.HOST, port), timeout=5)


def answers(connection: socket.socket, number: int) -> int:
    """How many of `number` answers came, 200 all of them."""
    received = b""
    while received.count(b'"data":"hello"') < number and (chunk := connection.recv(65536)):
        received += chunk
    return received.count(b"HTTP/1.1 200 OK")


@pytest.fixture
def port() -> Iterator[int]:
    """Where a server with a single thread listens; it ends on SIGTERM by itself."""
    (port,) = ports.claim([20_400])
    with subprocess.Popen([sys.executable, "-c", APP, str(port)], stdout=subprocess.DEVNULL) as server:
        try:
            assert wait_for(lambda: not ports.is_free(port), 30)
            yield port
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=20) == 0
    ports.release([port])


def test_one_thread_serves_many_connections_in_turn(port: int) -> None:
    connections = [connected(port) for _ in range(3)]
    for _ in range(20):
        for connection in connections:
            connection.sendall(HELLO)
        assert [answers(connection, 1) for connection in connections] == [1, 1, 1]
    for connection in connections:
        connection.close()


def test_requests_sent_without_waiting_are_all_answered(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(HELLO * 5)
        assert answers(connection, 5) == 5


def test_an_idle_connection_is_served_again(port: int) -> None:
    with connected(port) as idle, connected(port) as other:
        idle.sendall(HELLO)
        assert answers(idle, 1) == 1
        for _ in range(50):  # long enough for the thread to have left the idle one
            other.sendall(HELLO)
            assert answers(other, 1) == 1
        idle.sendall(HELLO)
        assert answers(idle, 1) == 1


@dataclass
class Sent:
    """What is written to a connection, write by write."""

    writes: list[bytes] = field(default_factory=list)

    def sendall(self, data: bytes) -> None:
        self.writes.append(data)


def written(method: str, status: str, *headers: tuple[str, str], parts: Sequence[bytes] = ()) -> list[bytes]:
    """The writes of an answer."""
    sent = Sent()
    asked = SimpleNamespace(method=method, version=(1, 1), should_close=lambda: False)
    answer = Answer(asked, sent, Config())
    answer.start_response(status, [*headers])
    for part in parts:
        answer.write(part)
    answer.close()
    return sent.writes


def test_an_answer_is_one_write() -> None:
    (whole,) = written("GET", "200 OK", LENGTH, parts=[b"hi"])
    assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
    assert whole.endswith(b"\r\nContent-Length: 2\r\n\r\nhi")
    assert len(written("GET", "200 OK", LENGTH, parts=[b"h", b"i"])) == 2


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "304 NOT MODIFIED")])
def test_an_answer_without_a_body_is_its_head(method: str, status: str) -> None:
    (head,) = written(method, status, LENGTH)
    assert head.startswith(f"HTTP/1.1 {status}\r\n".encode())
    assert head.endswith(b"\r\n\r\n")


def test_an_answer_of_unknown_length_is_chunked() -> None:
    whole = b"".join(written("GET", "200 OK", parts=[b"hi", b"ho"]))
    assert whole.count(b"HTTP/1.1 200 OK") == 1
    assert whole.endswith(b"\r\n\r\n2\r\nhi\r\n2\r\nho\r\n0\r\n\r\n")
