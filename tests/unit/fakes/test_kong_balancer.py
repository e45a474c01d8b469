"""Several targets behind the fake Kong: round robin, health checks and retries, as Kong 3.9 has them."""

from __future__ import annotations

import copy
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from socket import create_connection
from typing import Any

import pytest
import yaml

from fakes.kong.balancer import CheckedTarget, Event, Health
from fakes.kong.declarative import Checks, Target
from harness.runtime.compose import ROOT
from services.gateway import render
from tests.support.fake_servers import free_port
from tests.support.silent_proxy import SilentProxy
from tests.support.waiting import wait_until
from tests.unit.fakes.kong_gateway import KongClient, bearer, set_targets, upstream_server

pytestmark = pytest.mark.unit

BOUND = 10.0  # seconds, on a busy machine
READ_SECONDS = 1.0
NO_TARGET = "failure to get a peer from the ring-balancer"


class Pair:
    """Two targets of the orchestrator. The second is behind a proxy that can be silent or reset."""

    def __init__(self, first: Any, second: Any, proxy: SilentProxy, config: dict[str, Any]) -> None:
        self.first, self.second, self.proxy = first, second, proxy
        self.checks = config["upstreams"][2]["healthchecks"] = copy.deepcopy(render.CHECKS)
        for state in ("healthy", "unhealthy"):
            self.checks["active"][state]["interval"] = 0.1
        config["services"][2]["read_timeout"] = int(READ_SECONDS * 1000)
        set_targets(config, f"127.0.0.1:{first.server_port}", f"127.0.0.1:{proxy.port}")

    def switch_off_probes(self) -> None:
        """Keep the passive checks only."""
        for state in ("healthy", "unhealthy"):
            self.checks["active"][state]["interval"] = 0

    def count_requests(self, method: str = "POST") -> list[int]:
        """The number of clients' requests at each target."""
        return [sum(entry[:2] == (method, "/api/x") for entry in server.seen) for server in (self.first, self.second)]


@pytest.fixture
def pair(config: dict[str, Any]) -> Iterator[Pair]:
    with ExitStack() as opened:
        first, second = (opened.enter_context(upstream_server()) for _ in range(2))
        connect = partial(create_connection, ("127.0.0.1", second.server_port))
        yield Pair(first, second, opened.enter_context(SilentProxy(connect)), config)


def call(gateway: KongClient, method: str = "POST") -> int:
    """The status of one request."""
    body = b"{}" if method == "POST" else b""
    return gateway(method, "/api/x", bearer(), data=body).status_code


def call_often(gateway: KongClient, times: int = 10, method: str = "POST") -> list[int]:
    """The distinct statuses of several requests."""
    return sorted({call(gateway, method) for _ in range(times)})


def test_kernel_ends_connections_to_a_target_that_is_gone() -> None:
    """The limits are those of Kong in containers. A POST on such a connection would get 502."""
    gateway = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["api-gateway"]
    assert gateway["environment"]["KONG_NGINX_PROXY_PROXY_SOCKET_KEEPALIVE"] == "on"
    names = {"time": socket.TCP_KEEPIDLE, "intvl": socket.TCP_KEEPINTVL, "probes": socket.TCP_KEEPCNT}
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        connection: Any = CheckedTarget(Target(address), Checks()).pool._get_conn()
        with closing(connection):
            connection.connect()
            options = {name: connection.sock.getsockopt(socket.IPPROTO_TCP, names[name]) for name in names}
            assert connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert {f"net.ipv4.tcp_keepalive_{name}": value for name, value in options.items()} == gateway["sysctls"]


def test_targets_get_requests_in_turn(gateway, pair):
    pair.switch_off_probes()
    assert call_often(gateway, 20) == [200]
    assert pair.count_requests() == [10, 10]


def test_dead_target_costs_no_request(gateway, config, pair):
    """A POST that found no connection has not arrived, so it goes to the next target."""
    pair.switch_off_probes()
    set_targets(config, f"127.0.0.1:{pair.first.server_port}", f"127.0.0.1:{free_port()}")
    assert call_often(gateway) == [200]
    assert pair.count_requests() == [10, 0]


def test_hung_target_gets_no_requests_after_its_probes_failed(gateway, pair):
    assert call_often(gateway) == [200]
    pair.proxy.silence()
    wait_until(lambda: call_often(gateway, 4) == [200], BOUND)
    before, started = pair.count_requests(), time.monotonic()
    assert call_often(gateway, 20) == [200]
    assert time.monotonic() - started < READ_SECONDS * 5
    assert [after - earlier for after, earlier in zip(pair.count_requests(), before, strict=True)] == [20, 0]


def test_target_that_answers_again_gets_requests_again(gateway, pair):
    pair.proxy.silence()
    wait_until(lambda: call_often(gateway, 4) == [200], BOUND)
    assert pair.count_requests()[1] == 0
    pair.proxy.take_over()
    wait_until(lambda: call(gateway) == 200 and pair.count_requests()[1] > 0, BOUND)


def test_post_at_a_hung_target_is_not_repeated(gateway, pair):
    """It may have arrived, so only the client may repeat it, with its key."""
    pair.switch_off_probes()
    pair.proxy.silence()
    assert sorted([call(gateway), call(gateway)]) == [200, 504]
    assert pair.count_requests() == [1, 0]


def test_get_at_a_hung_target_goes_to_the_next(gateway, pair):
    pair.switch_off_probes()
    pair.proxy.silence()
    assert call_often(gateway, 4, "GET") == [200]
    assert pair.count_requests("GET") == [4, 0]


def test_second_timeout_of_a_client_marks_the_target(gateway, pair):
    pair.switch_off_probes()
    pair.proxy.silence()
    statuses = [call(gateway) for _ in range(10)]
    assert statuses.count(504) == render.CHECKS["passive"]["unhealthy"]["timeouts"] == 2
    assert set(statuses[-5:]) == {200}


def test_target_that_breaks_a_request_is_marked_at_once(gateway, pair):
    pair.switch_off_probes()
    pair.second.reply = None  # its handler fails after it has read the request
    statuses = [call(gateway) for _ in range(10)]
    assert statuses.count(502) == 1
    assert pair.count_requests() == [9, 1]


@pytest.mark.parametrize("status", [500, 503])
def test_error_of_a_service_is_an_answer(gateway, pair, status):
    """A database that is away makes every target answer 503, and then clients must still get those answers."""
    pair.first.reply = pair.second.reply = (status, [("Content-Type", "application/json")], b"{}")
    pair.switch_off_probes()
    assert call_often(gateway) == [status]
    assert pair.count_requests() == [5, 5]


def test_no_healthy_target_is_503_until_one_answers(gateway, config, pair):
    set_targets(config, f"127.0.0.1:{pair.proxy.port}", f"127.0.0.1:{free_port()}")
    pair.proxy.silence()
    gateway("GET", "/api/x", bearer())
    wait_until(lambda: call(gateway) == 503, BOUND)
    response = gateway("POST", "/api/x", bearer(), data=b"{}")
    assert response.json["message"] == NO_TARGET
    pair.proxy.take_over()
    wait_until(lambda: call(gateway) == 200, BOUND)


def test_single_target_is_called_although_it_failed(gateway, config, pair):
    """No other target could take its requests, so it has no checks, and the first call after its return succeeds."""
    del config["upstreams"][2]["healthchecks"]
    set_targets(config, f"127.0.0.1:{pair.proxy.port}")
    pair.proxy.reset()
    assert call_often(gateway, 4) == [502]
    pair.proxy.take_over()
    assert call(gateway) == 200


@pytest.mark.parametrize(
    ("events", "is_available"),
    [
        ([("timeout", 2)], True),
        ([("timeout", 2), ("timeout", 2)], False),
        ([("timeout", 2), ("tcp", 2)], True),
        ([("timeout", 2), ("success", 1), ("timeout", 2)], True),
        ([("timeout", 2), ("success", 0), ("timeout", 2)], False),
        ([("tcp", 1)], False),
        ([("tcp", 1), ("success", 1)], True),
        ([("tcp", 1), ("success", 2)], False),
        ([("tcp", 1), ("success", 2), ("tcp", 1), ("success", 2)], False),
        ([("tcp", 0)] * 9, True),
    ],
)
def test_counters_are_those_of_kong(events: list[tuple[Event, int]], is_available: bool) -> None:
    health = Health()
    for event, limit in events:
        health.report(event, limit)
    assert health.is_available is is_available
