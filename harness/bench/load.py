"""The load process: sends requests as fast as it gets responses, or at a rate (`python -m harness.bench.load`).

It reads tasks from stdin, one JSON line each. For each task it connects, prints `ready` and waits for another line.
Then its threads send requests for the given seconds, and it prints the results. The client uses raw keep-alive sockets
because it shares the CPU with the system.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from services.contracts.pb import inventory_pb2 as pb
from services.contracts.pb.inventory_pb2_grpc import InventoryStub

TIMEOUT_SECONDS = 10.0
TTL_SECONDS = 300
STRICT, ONCE, REPEAT = "strict", "once", "repeat"  # see LoadGenerator.run

Operation = Callable[[Any], str]
"""Does one work item. Returns "ok" or the error."""


class Connection:
    """A keep-alive HTTP connection."""

    def __init__(self, address: str) -> None:
        host, _, port = address.partition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and return the status and body of the response."""
        self._socket.sendall(request)
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive_more()
        head = received[:end].lower()
        at = head.find(b"content-length:") + 15
        length = int(head[at : (head + b"\r\n").find(b"\r\n", at)])
        while len(received) < end + 4 + length:
            received += self._receive_more()
        return int(head[9:12]), received[end + 4 :]

    def _receive_more(self) -> bytes:
        chunk = self._socket.recv(1 << 16)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        return chunk


def build_request(method: str, path: str, token: str, body: Any = None) -> bytes:
    """Return the bytes of an HTTP request with a JSON body, or without a body."""
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return f"{head}\r\n".encode() + content


def _reserve(connection: Connection) -> Operation:
    def operate(work: list[str]) -> str:
        token, seat = work
        return _outcome(*connection.send(build_request("POST", "/api/reserve", token, {"seat_id": seat})))

    return operate


def _purchase(connection: Connection) -> Operation:
    def operate(work: list[str]) -> str:
        token, seat = work
        status, body = connection.send(build_request("POST", "/api/reserve", token, {"seat_id": seat}))
        if status != 200:
            return _outcome(status, body)
        order_id = json.loads(body)["data"]["order_id"]
        return _outcome(*connection.send(build_request("POST", "/api/pay", token, {"order_id": order_id})))

    return operate


def _scan(connection: Connection) -> Operation:
    def operate(work: list[str]) -> str:
        token, qr, hall = work
        status, body = connection.send(build_request("POST", "/api/verify", token, {"qr_payload": qr, "hall_id": hall}))
        result = json.loads(body)["data"]["result"] if status == 200 else ""
        return "ok" if result == "SUCCESS" else result or _outcome(status, body)

    return operate


def _get(connection: Connection) -> Operation:
    def operate(work: list[str]) -> str:
        token, path = work
        return _outcome(*connection.send(build_request("GET", path, token)))

    return operate


def _log_in(connection: Connection) -> Operation:
    def operate(work: list[str]) -> str:
        email, password = work
        body = {"email": email, "password": password}
        return _outcome(*connection.send(build_request("POST", "/api/auth/login", "", body)))

    return operate


def _buy_as_visitor(connection: Connection) -> Operation:
    """Do what a visitor of a sale does: read the event, reserve, pay, read the balance and open the ticket."""
    purchase, get = _purchase(connection), _get(connection)

    def operate(work: list[str]) -> str:
        token, seat, event = work
        calls = [(get, f"/api/events/{event}"), (purchase, seat)]
        calls += [(get, "/api/credits/balance"), (get, f"/api/tickets/{seat}/qr")]
        return next((outcome for call, about in calls if (outcome := call([token, about])) != "ok"), "ok")

    return operate


def _outcome(status: int, body: bytes) -> str:
    return "ok" if status < 300 else f"{status} {json.loads(body).get('error_code')}"


HTTP: Mapping[str, Callable[[Connection], Operation]] = {
    "reserve": _reserve,
    "purchase": _purchase,
    "scan": _scan,
    "get": _get,
    "login": _log_in,
    "visit": _buy_as_visitor,
}


def _grpc_reserve(address: str, credential: str) -> Operation:
    stub = InventoryStub(grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]))  # type: ignore[no-untyped-call]
    metadata = [("authorization", credential)]

    def operate(work: list[str]) -> str:
        user, seat, hold = work
        message = pb.ReserveSeatRequest(seat_id=seat, user_id=user, hold_id=hold, ttl_seconds=TTL_SECONDS)
        try:
            stub.ReserveSeat(message, timeout=TIMEOUT_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "ok"

    return operate


def _connect_clients(task: Mapping[str, Any]) -> list[Operation]:
    replicas = task["address"].split(",")
    addresses = [replicas[n % len(replicas)] for n in range(task["threads"])]
    if task["operation"] == "ReserveSeat":
        return [_grpc_reserve(address, task["credential"]) for address in addresses]
    return [HTTP[task["operation"]](Connection(address)) for address in addresses]


def _run_items(
    operate: Operation, work: list[Any], deadline: float, mode: str, due: float, interval: float
) -> list[tuple[str, float]]:
    results: list[tuple[str, float]] = []
    for item in itertools.cycle(work) if mode == REPEAT else work:
        time.sleep(max(0.0, due - time.perf_counter()))
        due += interval
        start = time.perf_counter()
        if start > deadline:
            return results
        results.append((operate(item), time.perf_counter() - start))
    if mode == STRICT:
        results.append(("work ran out", 0.0))
    return results


def _run_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """Connect, wait for the signal to start, do the work and return the results."""
    clients = _connect_clients(task)
    print('"ready"', flush=True)
    sys.stdin.readline()
    start, number = time.perf_counter(), len(clients)
    deadline, mode, interval = start + task["seconds"], task["mode"], task["interval"]
    with ThreadPoolExecutor(number) as pool:
        futures = [  # with an interval, the clients begin one after another
            pool.submit(_run_items, operate, work, deadline, mode, start + interval * n / number, interval)
            for n, operate in enumerate(clients)
            for work in [task["work"][n::number]]
        ]
        results = [result for future in futures for result in future.result()]
    seconds = time.perf_counter() - start
    outcomes = Counter(outcome for outcome, _ in results)
    return {"seconds": seconds, "outcomes": outcomes, "latencies": [latency for _, latency in results]}


def main() -> None:
    """Run the tasks from stdin until it is closed."""
    while task := sys.stdin.readline():
        print(json.dumps(_run_task(json.loads(task))), flush=True)


if __name__ == "__main__":
    main()
