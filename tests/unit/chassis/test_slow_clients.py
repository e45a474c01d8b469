"""Clients that send half a request, or one byte at a time, to the production server with one thread."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from harness.runtime import ports
from harness.runtime.process import wait_for
from services.chassis import serve
from services.chassis.serve import QUEUE_PER_THREAD
from services.chassis.stalled_connections import StalledConnections
from tests.unit.chassis.test_serve import APP, HELLO, LATE, connect, count_ok, serves

pytestmark = pytest.mark.unit

SECONDS = 1.0  # the server's deadline for a request
SHORT_DEADLINE = f"from services.chassis import serve\nserve.BODY_SECONDS = {SECONDS}\n"
POST = b"POST /size HTTP/1.1\r\nHost: served\r\n"
HALF_BODY = POST + b"Content-Length: 100\r\n\r\nhalf"
HALF_CHUNK = POST + b"Transfer-Encoding: chunked\r\n\r\n64\r\nhalf"
HALF_HEAD = b"GET /hello HTTP/1.1\r\nHost: ser"
WHOLE = POST + b"Content-Length: 2\r\n\r\nhi"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The port of a running server with the short deadline. /late waits for the file `gate` in `tmp_path`."""
    (port,) = ports.claim([20_402])
    command = [sys.executable, "-c", SHORT_DEADLINE + APP, str(port), str(tmp_path / "gate")]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log) as process:
        assert wait_for(lambda: serves(port), 30)
        yield port
        process.kill()
    ports.release([port])


def read_all(connection: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_half_bodies_leave_the_thread_to_others(port: int) -> None:
    late = [connect(port) for _ in range(QUEUE_PER_THREAD)]
    for connection in late:
        connection.sendall(HALF_BODY)
    began = time.monotonic()
    while time.monotonic() - began < SECONDS / 2:  # the half bodies arrive at some moment of this time
        with connect(port) as honest:
            honest.sendall(HELLO)
            assert count_ok(honest, 1) == 1
    for connection in late:
        connection.close()


def test_half_body_is_refused_after_the_deadline(port: int) -> None:
    began = time.monotonic()
    with connect(port) as connection:
        connection.sendall(HALF_BODY)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"did not arrive within" in answer
    assert time.monotonic() - began >= SECONDS


def test_half_chunk_is_answered_after_the_deadline(port: int) -> None:
    began = time.monotonic()
    with connect(port) as connection:
        connection.sendall(HALF_CHUNK)
        assert connection.recv(65536)
    assert time.monotonic() - began >= SECONDS


@pytest.mark.parametrize(("late_by", "is_complete"), [(-1, True), (1, False)])
def test_chunked_body_counts_as_cut_by_its_time(
    monkeypatch: pytest.MonkeyPatch, late_by: float, is_complete: bool
) -> None:
    """Granian returns the part of a cut chunked body that has arrived, as if it were the whole body.

    After a slow head, the cut comes earlier, and the part counts as whole. It is no valid JSON, so it gets 400 as well.
    """
    times = iter([0.0, serve.BODY_SECONDS + late_by])
    monkeypatch.setattr(serve, "time", SimpleNamespace(monotonic=lambda: next(times)))
    environ = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": BytesIO(b"half")}
    assert serve._read_body(environ) == is_complete


def test_dripping_body_meets_the_same_deadline(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(HALF_BODY)
        connection.settimeout(0.2)
        answer = b""
        for _ in range(20):  # a byte each 0.2 s, four seconds in all, and the body has 100 bytes
            connection.sendall(b"x")
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                continue
            break
    assert answer.startswith(b"HTTP/1.1 400")


def test_half_head_is_cut_after_the_deadline(port: int) -> None:
    with connect(port) as silent, connect(port) as half:
        half.sendall(HALF_HEAD)
        assert read_all(half) == b""
        assert read_all(silent) == b""


@pytest.fixture
def both_ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection of this process to itself, as (the client's end, the server's end)."""
    with socket.create_server((ports.HOST, 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        connection, _ = listener.accept()
        with connection:
            yield client, connection


def cut_late_connections(server: socket.socket, is_busy: bool = False) -> StalledConnections:
    """Cut each connection of this server that is not answered, however young it is."""
    late = StalledConnections(server.getsockname()[1], -1, lambda: is_busy)
    late.tick()
    return late


def is_cut(server: socket.socket) -> bool:
    """Whether a connection is cut. Everything that its client has sent must have been read."""
    server.setblocking(False)
    try:
        return server.recv(1) == b""
    except BlockingIOError:
        return False


def test_search_for_late_connections_leaves_no_file_open(
    both_ends: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    with (tmp_path / "file").open("wb"):
        opened = psutil.Process().num_fds()
        late = cut_late_connections(both_ends[1])
        for _ in range(10):
            late.tick()
        assert psutil.Process().num_fds() == opened
    assert is_cut(both_ends[1]), "the connection was not found"


def test_nothing_is_cut_while_a_response_takes_longer(both_ends: tuple[socket.socket, socket.socket]) -> None:
    cut_late_connections(both_ends[1], is_busy=True)
    assert not is_cut(both_ends[1])


def test_idle_connection_is_not_cut(both_ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = both_ends
    client.sendall(b"request")
    assert server.recv(100) == b"request"
    server.sendall(b"response")
    assert client.recv(100) == b"response"
    cut_late_connections(server)
    assert not is_cut(server)


def test_second_request_of_a_connection_has_the_deadline_too(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(WHOLE)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert not is_cut_within(connection, 3 * SECONDS), "an idle connection was cut"
        connection.sendall(HALF_BODY)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")


def is_cut_within(connection: socket.socket, seconds: float) -> bool:
    """Whether the server closes the connection within that time."""
    connection.settimeout(seconds)
    try:
        return connection.recv(65536) == b""
    except TimeoutError:
        return False
    finally:
        connection.settimeout(5)


def test_complete_request_may_take_longer_than_the_deadline(port: int, tmp_path: Path) -> None:
    with connect(port) as waiting:
        waiting.sendall(LATE)
        assert not is_cut_within(waiting, 3 * SECONDS)
        (tmp_path / "gate").touch()
        assert count_ok(waiting, 1) == 1
