"""The fake Kong routes and proxies as Kong 3.9."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.kong.router import normalize
from tests.support.fake_servers import free_port
from tests.support.waiting import wait_until
from tests.unit.fakes.kong_gateway import TEMPLATE, bearer, set_targets

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/api/auth/login", "user-service"),
        ("/api/auth/logout", "user-service"),
        ("/api/webhooks/stripe", "user-service"),
        ("/api/events", "event-service"),
        ("/api/events/1?page=2", "event-service"),
        ("/api/pay", "orchestrator-service"),
        ("/api/webhooks/other", "orchestrator-service"),
        ("/docs", "orchestrator-service"),
        ("/health", "orchestrator-service"),
    ],
)
def test_path_reaches_its_service_unchanged(path, service, gateway, upstream):
    assert gateway("GET", path, bearer()).status_code == 200
    assert upstream.seen[0][1] == path
    assert gateway.lines[0][2].endswith(f"→ {service}")


@pytest.mark.parametrize("path", ["/", "/api", "/nope", "/healthz", "/health/live"])
def test_unknown_path_is_404_in_the_envelope(path, gateway, upstream):
    response = gateway("GET", path, bearer())
    assert response.status_code == 404
    assert response.json == {
        "success": False,
        "error_code": "GATEWAY_REJECTED",
        "message": "no Route matched with those values",
        "correlation_id": response.headers["X-Correlation-ID"],
    }
    assert upstream.seen == []


@pytest.mark.parametrize(
    "path",
    [
        "/api/auth/login/../logout",
        "/api/auth/login/",
        "/api/auth/loginx",
        "/api/auth/login%0A",
        "/api//auth/login/%2e%2e/refresh",
        "/x/api/auth/login/../../../../api/pay",
    ],
)
def test_no_spelling_of_a_path_makes_it_public(path, gateway, upstream):
    assert gateway("GET", path).status_code == 401
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/a/b", "/a/b"),
        ("/a//b/", "/a/b/"),
        ("/a/./b/../c", "/a/c"),
        ("/../../a", "/a"),
        ("/%61%2f%7e", "/a%2F~"),
        ("/a/..", "/"),
        ("/a/b/.", "/a/b/"),
    ],
)
def test_paths_are_normalized(path, normal):
    assert normalize(path) == normal


def test_route_with_methods_wins_for_these_methods_only(config, gateway):
    extra = {"name": "pay", "paths": ["/api/pay"], "methods": ["POST"], "strip_path": False}
    config["services"][1]["routes"].append(extra)
    gateway("POST", "/api/pay", bearer())
    gateway("GET", "/api/pay", bearer())
    assert [line[2].rpartition(" ")[2] for line in gateway.lines] == ["event-service", "orchestrator-service"]


def test_raw_body_arrives_unchanged(gateway, upstream):
    body = b'{"b": 1,  "a":\t"\xc3\xa9"}\r\n\x00\xff'
    headers = {"Content-Type": "application/json", "Stripe-Signature": "t=1,v1=abc"}
    assert gateway("POST", "/api/webhooks/stripe", headers, data=body).status_code == 200
    _, _, received, arrived = upstream.seen[0]
    assert arrived == body
    assert received["Stripe-Signature"] == "t=1,v1=abc"
    assert received["Content-Type"] == "application/json"


def test_binary_response_returns_unchanged(gateway, upstream):
    picture = bytes(range(256))
    upstream.reply = (
        201,
        [("Content-Type", "image/png"), ("ETag", '"x"'), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
        picture,
    )
    response = gateway("GET", "/api/tickets/1/qr", bearer())
    assert (response.status_code, response.data) == (201, picture)
    assert response.headers["ETag"] == '"x"'
    assert response.headers.getlist("Set-Cookie") == ["a=1", "b=2"]


def test_304_keeps_its_etag_and_has_no_body(gateway, upstream):
    upstream.reply = (304, [("ETag", '"x"')], b"")
    response = gateway("GET", "/api/events/1", {**bearer(), "If-None-Match": '"x"'})
    assert (response.status_code, response.data, response.headers["ETag"]) == (304, b"", '"x"')
    assert upstream.seen[0][2]["If-None-Match"] == '"x"'


def test_upstream_gets_forwarded_headers_but_no_hop_by_hop_ones(gateway, upstream):
    sent = {
        **bearer(),
        "Connection": "keep-alive, X-Private",
        "X-Private": "1",
        "X-Forwarded-For": "1.2.3.4",
        "X-Real-IP": "6.6.6.6",
    }
    gateway("GET", "/api/orders?a=%20b", sent, client="10.0.0.9", base_url="http://shop.example:8000")
    _, path, received, _ = upstream.seen[0]
    assert path == "/api/orders?a=%20b"
    assert received["X-Forwarded-For"] == "1.2.3.4, 10.0.0.9"
    assert received["X-Real-IP"] == "10.0.0.9"
    assert received["X-Forwarded-Host"] == "shop.example"
    assert received["X-Forwarded-Path"] == "/api/orders"
    assert received["X-Consumer-Username"] == "ticketremaster"
    assert received["Authorization"].startswith("Bearer ")
    assert "X-Private" not in received
    assert received["Host"] == f"127.0.0.1:{upstream.server_port}"


def test_dead_upstream_is_502(config, gateway):
    set_targets(config, "127.0.0.1:9")
    response = gateway("GET", "/api/orders", bearer())
    assert response.status_code == 502
    assert response.json["error_code"] == "GATEWAY_REJECTED"
    assert response.json["message"] == "An invalid response was received from the upstream server"


def test_unknown_host_is_503(config, gateway):
    set_targets(config, "nowhere.invalid:1")
    assert gateway("GET", "/api/orders", bearer()).status_code == 503


def test_slow_upstream_is_504_and_a_post_is_not_retried(config, gateway, upstream):
    config["services"][2]["read_timeout"] = 100
    upstream.ready.clear()
    response = gateway("POST", "/api/pay", bearer(), data=b"{}")
    upstream.ready.set()
    assert response.status_code == 504
    assert response.json["message"] == "The upstream server is timing out"
    wait_until(lambda: upstream.seen)  # a busy upstream can receive a request after its timeout
    assert [entry[0] for entry in upstream.seen] == ["POST"]


def test_slow_get_is_retried(config, gateway, upstream):
    config["services"][2]["read_timeout"] = 100
    upstream.ready.clear()
    assert gateway("GET", "/api/orders", bearer()).status_code == 504
    upstream.ready.set()
    wait_until(lambda: [entry[0] for entry in upstream.seen] == ["GET", "GET"])


@contextmanager
def running(config: dict[str, Any], folder: Path, before: str = "") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start the gateway as a process, and return it with its port once it is ready. It runs the code `before` first."""
    port, status_port = free_port(), free_port()
    (folder / "kong.yml").write_text(yaml.safe_dump(config))
    env = {
        **os.environ,
        "BIND": "127.0.0.1",
        "PORT": str(port),
        "KONG_DECLARATIVE_CONFIG": str(folder / "kong.yml"),
        "KONG_ERROR_TEMPLATE_JSON": str(TEMPLATE),
        "KONG_STATUS_LISTEN": f"127.0.0.1:{status_port}",
    }
    command = [sys.executable, "-c", f"{before}from fakes.kong.__main__ import main, os; main(os.environ)"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_until_ready(process, status_port)
            yield process, port
        finally:
            process.kill()


def wait_until_ready(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/status/ready")
            assert connection.getresponse().status == 200
            return
        except ConnectionRefusedError:
            time.sleep(0.05)  # before the next try
        finally:
            connection.close()
    raise AssertionError("the gateway did not become ready")


def test_process_serves_logs_and_stops(config, upstream, tmp_path):
    with running(config, tmp_path) as (process, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("POST", "/api/pay", iter([b"{", b"}"]), bearer(), encode_chunked=True)
        assert connection.getresponse().read() == b'{"success": true}'
        socket_used = connection.sock
        too_much = iter([b"x" * 2**19] * 3)
        connection.request("POST", "/api/pay", too_much, bearer(), encode_chunked=True)
        refusal = connection.getresponse()
        assert (refusal.status, json.load(refusal)["error_code"]) == (413, "GATEWAY_REJECTED")
        connection.request("POST", "/api/pay", b"{}")
        refusal = connection.getresponse()
        assert (refusal.status, json.load(refusal)["message"]) == (401, "Unauthorized")
        connection.request("HEAD", "/docs")
        answer = connection.getresponse()
        assert (answer.status, answer.read(), answer.headers["Content-Length"]) == (200, b"", "17")
        assert connection.sock is socket_used
        connection.close()
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert [entry[3] for entry in upstream.seen] == [b"{}", b""]
    assert [json.loads(line)["level"] for line in output.splitlines()] == ["INFO", "WARNING", "WARNING", "INFO"]


SHORT_DEADLINE = "from fakes.kong import receiving; receiving.SECONDS = 1; "
HALF_HEAD = b"POST /api/auth/login HTTP/1.1\r\nHost: kong"
HALF_BODY = HALF_HEAD + b"\r\nContent-Length: 100\r\n\r\nhalf"


def test_late_head_or_body_is_cut(config, upstream, tmp_path):
    with running(config, tmp_path, SHORT_DEADLINE) as (_, port):
        with connect(port) as head, connect(port) as body:
            head.sendall(HALF_HEAD)
            body.sendall(HALF_BODY)
            assert head.recv(2**16) == b""
            assert body.recv(2**16).startswith(b"HTTP/1.1 400")
    assert upstream.seen == []


def test_request_that_arrived_may_take_longer_than_the_deadline(config, upstream, tmp_path):
    upstream.ready.clear()
    with running(config, tmp_path, SHORT_DEADLINE) as (_, port), connect(port) as waiting:
        waiting.sendall(HALF_HEAD + b"\r\nContent-Length: 2\r\n\r\n{}")
        time.sleep(2.5)  # longer than the deadline and a tick
        upstream.ready.set()
        assert waiting.recv(2**16).startswith(b"HTTP/1.1 200")


def connect(port: int) -> socket.socket:
    """Connect to the gateway."""
    return socket.create_connection(("127.0.0.1", port), timeout=5)
