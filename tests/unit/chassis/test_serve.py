"""The production server as a process with one thread."""

from __future__ import annotations

import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from flask import Flask
from werkzeug.test import EnvironBuilder

from harness.runtime import ports
from harness.runtime.process import wait_for
from services.chassis.serve import GRACE_SECONDS, QUEUE_PER_THREAD, _join_body

pytestmark = pytest.mark.unit

APP = """
import os, sys, time
from dataclasses import replace
from flask import request
from services.chassis import access, serve, web
from tests.support.service_settings import process_settings

settings = replace(process_settings("order-service"), service="served", port=int(sys.argv[1]), threads=1)

class Background:
    def start(self): pass
    def stop(self): print("background work stopped", flush=True)

def build():
    if sys.argv[3:] == ["slowly"]:
        print("building", flush=True)
        while not os.path.exists(sys.argv[2]):
            time.sleep(0.01)
    app = web.create_app(settings, checks={})

    @app.get("/hello")
    @access.public
    def hello():
        return web.ok("hello")

    @app.get("/late")
    @access.public
    def late():
        print("late begins", flush=True)
        while not os.path.exists(sys.argv[2]):
            time.sleep(0.01)
        return web.ok("hello")

    @app.post("/size")
    @access.public
    def size():
        return web.ok(len(request.get_data()))

    return web.finish(app, Background())

serve.serve(settings, build)
"""
LATE = b"GET /late HTTP/1.1\r\nHost: served\r\n\r\n"
HELLO = b"GET /hello HTTP/1.1\r\nHost: served\r\n\r\n"


def connect(port: int) -> socket.socket:
    """Connect with a read timeout of five seconds."""
    return socket.create_connection((ports.HOST, port), timeout=5)


def count_ok(connection: socket.socket, number: int) -> int:
    """Read up to `number` responses and count those with status 200."""
    received = b""
    while received.count(b'"data":"hello"') < number and (chunk := connection.recv(65536)):
        received += chunk
    return received.count(b"HTTP/1.1 200 OK")


def serves(port: int) -> bool:
    """Return whether the server answers. `is_free` would listen itself, and so keep a starting server from its port."""
    try:
        with connect(port) as probe:
            probe.sendall(HELLO)
            return count_ok(probe, 1) == 1
    except OSError:
        return False


@dataclass
class Server:
    """A server with a single thread, and its log."""

    process: subprocess.Popen[bytes]
    log: Path
    gate: Path  # the /late route waits until this file exists

    def has_logged(self, text: str) -> bool:
        """Wait until the log contains `text`. False after 20 seconds."""
        return wait_for(lambda: text in self.log.read_text(), 20)


@pytest.fixture
def port() -> Iterator[int]:
    """The port of the server."""
    (port,) = ports.claim([20_400])
    yield port
    ports.release([port])


@pytest.fixture(autouse=True)
def server(port: int, tmp_path: Path) -> Iterator[Server]:
    """A running server. It has to end on SIGTERM with status 0."""
    log, gate = tmp_path / "log", tmp_path / "gate"
    command = [sys.executable, "-c", APP, str(port), str(gate)]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output) as process:
        assert wait_for(lambda: serves(port), 30)
        yield Server(process, log, gate)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0


def test_one_thread_serves_many_connections_in_turn(port: int) -> None:
    connections = [connect(port) for _ in range(3)]
    for _ in range(20):
        for connection in connections:
            connection.sendall(HELLO)
        assert [count_ok(connection, 1) for connection in connections] == [1, 1, 1]
    for connection in connections:
        connection.close()


def test_requests_sent_without_waiting_are_all_answered(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(HELLO * 5)
        assert count_ok(connection, 5) == 5


def test_an_idle_connection_is_served_again(port: int) -> None:
    with connect(port) as idle, connect(port) as other:
        idle.sendall(HELLO)
        assert count_ok(idle, 1) == 1
        for _ in range(50):  # enough requests for the thread to leave the idle connection
            other.sendall(HELLO)
            assert count_ok(other, 1) == 1
        idle.sendall(HELLO)
        assert count_ok(idle, 1) == 1


def test_sigterm_finishes_the_request_and_stops_background_work(port: int, server: Server) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET /late HTTP/1.1\r\nHost: served\r\n\r\n")
        assert server.has_logged("late begins")
        server.process.send_signal(signal.SIGTERM)
        assert wait_for(lambda: ports.is_free(port), 20)  # no new connection is accepted
        server.gate.touch()
        assert count_ok(connection, 1) == 1
    assert server.process.wait(timeout=20) == 0
    assert server.has_logged("background work stopped")


def test_health_is_answered_while_other_requests_wait(port: int, server: Server) -> None:
    waiting = [connect(port) for _ in range(5)]
    waiting[0].sendall(LATE)
    assert server.has_logged("late begins")
    for connection in waiting[1:]:
        connection.sendall(HELLO)
    for path in (b"/health/live", b"/health", b"/metrics"):
        with connect(port) as probe:
            probe.sendall(b"GET %s HTTP/1.1\r\nHost: served\r\n\r\n" % path)
            assert probe.recv(65536).startswith(b"HTTP/1.1 200 OK")
    server.gate.touch()
    assert [count_ok(connection, 1) for connection in waiting] == [1] * 5
    for connection in waiting:
        connection.close()


def test_requests_beyond_the_queue_are_refused_at_once(port: int, server: Server) -> None:
    with connect(port) as busy:
        busy.sendall(LATE)
        assert server.has_logged("late begins")
        others = [connect(port) for _ in range(QUEUE_PER_THREAD + 1)]
        for connection in others:
            connection.sendall(HELLO)
        refused = wait_for_readable(others)
        answer = refused.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in answer.lower()
        assert b"SERVICE_UNAVAILABLE" in answer
        others.remove(refused)
        server.gate.touch()
        assert [count_ok(connection, 1) for connection in others] == [1] * QUEUE_PER_THREAD
    for connection in (refused, *others):
        connection.close()


def wait_for_readable(connections: list[socket.socket]) -> socket.socket:
    """Return the first connection that has received something."""
    readable, _, _ = select.select(connections, [], [], 10)
    assert readable
    return connections[connections.index(readable[0])]


def test_a_worker_does_not_outlive_its_parent(server: Server) -> None:
    (worker,) = psutil.Process(server.process.pid).children()
    server.process.kill()
    server.process.wait()
    worker.wait(timeout=20)


def test_sigterm_ends_a_starting_server_immediately(tmp_path: Path) -> None:
    (port,) = ports.claim([20_401])
    log = tmp_path / "slow.log"
    command = [sys.executable, "-c", APP, str(port), str(tmp_path / "never"), "slowly"]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output) as process:
        assert wait_for(lambda: "building" in log.read_text(), 30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=GRACE_SECONDS / 2) == 0
    ports.release([port])


def test_a_taken_port_prevents_the_start(port: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", APP, str(port), str(tmp_path)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert f"served cannot listen on {ports.HOST}:{port}: Address already in use" in second.stderr


def test_a_response_body_is_one_list() -> None:
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "hi")
    seen: list[str] = []
    environ = EnvironBuilder().get_environ()
    assert _join_body(app)(environ, lambda status, _headers: seen.append(status)) == [b"hi"]
    assert seen == ["200 OK"]


HEAD = b"HEAD /hello HTTP/1.1\r\nConnection: close\r\n\r\n"
BROKEN = b"GET /hello HTTP/1.1\r\nContent-Length: x\r\n\r\n"
CHUNKED = (
    b"POST /size HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n2\r\nho\r\n0\r\n\r\n"
)


@pytest.mark.parametrize(
    ("sent", "status", "body"), [(HEAD, b"200", b""), (BROKEN, b"400", b""), (CHUNKED, b"200", b'"data":4')]
)
def test_http_edge_cases(port: int, sent: bytes, status: bytes, body: bytes) -> None:
    with connect(port) as connection:
        connection.sendall(sent)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, came = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert body in came if body else not came
