"""Several replicas behind one address: HTTP replicas that hang or are gone, and names that cannot be looked up."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import NoReturn

import pytest

from harness.runtime import ports
from services.chassis import http_transport, replicas
from services.chassis.http_transport import PooledTransport
from services.chassis.replicas import NotConnected, Replica, Replicas, resolve
from tests.support.http_servers import AnsweringServer, Request, answer_success
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unit

AT_ONCE = 1.5  # seconds, on a busy machine


class Pair:
    """Two HTTP replicas behind one address. The second one can hang."""

    def __init__(self) -> None:
        self.is_awake = threading.Event()
        self.is_awake.set()
        self.one = AnsweringServer(lambda _request: (200, b"one"))
        self.two = AnsweringServer(self._answer)
        self.transport = PooledTransport()
        self.url = f"http://127.0.0.1:{self.one.port},127.0.0.1:{self.two.port}/x"

    def _answer(self, _request: Request) -> tuple[int, bytes]:
        assert self.is_awake.wait(20)
        return 200, b"two"

    def send(self, method: str, timeout: float = 5) -> bytes:
        """Return the name of the replica that answered."""
        return self.transport(method, self.url, None, {}, timeout)[1]

    def send_safely(self, method: str, timeout: float) -> bytes | None:
        """Return the name of the replica that answered, or None after a timeout."""
        try:
            return self.send(method, timeout)
        except TimeoutError:
            return None


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr(http_transport, "READ_SECONDS", 0.3)
    pair = Pair()
    with pair.one, pair.two:
        yield pair
        pair.is_awake.set()


def test_http_calls_reach_each_replica(pair: Pair) -> None:
    assert [pair.send("POST") for _ in range(4)] == [b"one", b"two"] * 2


def test_http_replica_that_hangs_is_left_out_until_it_answers(pair: Pair) -> None:
    pair.is_awake.clear()
    answers = [pair.send_safely("POST", 1.0) for _ in range(20)]
    assert (answers.count(None), answers.count(b"one")) == (1, 19)
    assert len([each for each in pair.two.requests if each.path == "/x"]) == 1, "a POST is never repeated"
    pair.is_awake.set()
    wait_until(lambda: pair.send("POST") == b"two")


def test_get_whose_replica_hangs_is_answered_by_the_other(pair: Pair) -> None:
    pair.is_awake.clear()
    assert [pair.send("GET") for _ in range(10)] == [b"one"] * 10


def test_post_that_was_not_sent_goes_to_the_next_replica() -> None:
    (gone,) = ports.claim([20_610])
    with AnsweringServer() as server:
        transport, address = PooledTransport(), f"http://127.0.0.1:{gone},127.0.0.1:{server.port}/x"
        assert {transport("POST", address, None, {}, 5)[0] for _ in range(4)} == {200}
    ports.release([gone])


def test_connect_to_a_node_that_is_gone_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node drops every packet. Here its queue of connections is full, which looks the same to a client."""
    monkeypatch.setattr(http_transport, "CONNECT_SECONDS", 0.3)

    def answer(request: Request) -> tuple[int, bytes]:
        time.sleep(0.5)  # the work of a service
        return answer_success(request)

    with socket.create_server((ports.HOST, 0), backlog=0) as full, AnsweringServer(answer) as server:
        place = full.getsockname()
        with closing(socket.create_connection(place)):
            transport, address = PooledTransport(), f"http://127.0.0.1:{place[1]},127.0.0.1:{server.port}/x"
            assert {transport("POST", address, None, {}, 5)[0] for _ in range(2)} == {200}


def test_name_that_cannot_be_looked_up_fails_every_call_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls share one look-up. Otherwise each of them would wait for a slow name server in its turn."""
    looked_up: list[str] = []

    def fail(address: str) -> list[str]:
        looked_up.append(address)
        raise OSError("not known")

    monkeypatch.setattr(replicas, "resolve", fail)
    monkeypatch.setattr(replicas, "FIRST_CHECK", 60.0)  # until the next look-up
    service = Replicas("order-service:5001", Replica)
    started = time.monotonic()
    for _ in range(5):
        with pytest.raises(NotConnected):
            service.choose()
    assert (looked_up, time.monotonic() - started < AT_ONCE) == (["order-service:5001"], True)


def test_name_is_looked_up_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[list[str]] = [["127.0.0.1:1"], []]
    monkeypatch.setattr(replicas, "resolve", lambda _address: answers.pop() or _raise_unknown_name())
    service = Replicas("order-service:5001", Replica)
    assert not _has_replica(service)
    wait_until(lambda: _has_replica(service))


def _raise_unknown_name() -> NoReturn:
    raise OSError("not known")


def _has_replica(service: Replicas[Replica]) -> bool:
    try:
        return bool(service.choose())
    except NotConnected:
        return False


def test_silent_name_server_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    is_over = threading.Event()
    monkeypatch.setattr(replicas, "LOOK_UP_SECONDS", 0.1)
    monkeypatch.setattr(replicas, "resolve", lambda _address: ["127.0.0.1:1"] if is_over.wait(10) else [])
    started = time.monotonic()
    with pytest.raises(NotConnected):
        Replicas("order-service:5001", Replica).choose()
    assert time.monotonic() - started < AT_ONCE
    is_over.set()


def test_service_that_moved_is_found_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that is created again has another address. A failure does not wait for the next regular look-up."""
    (gone,) = ports.claim([20_611])
    with AnsweringServer() as server:
        found = [f"127.0.0.1:{gone}"]
        monkeypatch.setattr(replicas, "RESOLVE_SECONDS", 60.0)
        monkeypatch.setattr(replicas, "resolve", lambda _address: list(found))
        transport = PooledTransport()

        def is_answered() -> bool:
            try:
                return transport("POST", "http://order-service:5001/x", None, {}, 5)[0] == 200
            except NotConnected:
                return False

        assert not is_answered()
        found[:] = [f"127.0.0.1:{server.port}"]
        wait_until(is_answered)
    ports.release([gone])


def test_addresses_of_a_name_and_of_a_list() -> None:
    assert resolve("127.0.0.1:1, 127.0.0.2:2") == ["127.0.0.1:1", "127.0.0.2:2"]
    assert resolve("127.0.0.1:5001") == ["127.0.0.1:5001"]
    assert resolve("[::1]:5001") == ["[::1]:5001"]
