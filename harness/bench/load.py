"""A process that asks as fast as it is answered: `python -m harness.bench.load`, each task one JSON line on stdin.

It says `ready`, waits for another line, asks for the given seconds from several threads, and prints what came of it.
The client is as bare as can be, since its CPU is the machine's too: raw keep-alive sockets, requests made beforehand.
"""

from __future__ import annotations

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

SECONDS = 10.0  # an answer later than this is none
TTL_SECONDS = 300

Ask = Callable[[Any], str]
"""Does one piece of work; what came of it: "ok", or why not."""


class Connection:
    """One keep-alive HTTP connection."""

    def __init__(self, address: str) -> None:
        host, _, port = address.partition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a whole request; status and body."""
        self._socket.sendall(request)
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._more()
        head = received[:end].lower()
        at = head.find(b"content-length:") + 15
        length = int(head[at : (head + b"\r\n").find(b"\r\n", at)])
        while len(received) < end + 4 + length:
            received += self._more()
        return int(head[9:12]), received[end + 4 :]

    def _more(self) -> bytes:
        chunk = self._socket.recv(1 << 16)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        return chunk


def request(method: str, path: str, token: str, body: Any = None) -> bytes:
    """The bytes of a request."""
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return f"{head}\r\n".encode() + content


def _reserve(connection: Connection) -> Ask:
    def ask(work: list[str]) -> str:
        token, seat = work
        return _outcome(*connection.ask(request("POST", "/api/reserve", token, {"seat_id": seat})))

    return ask


def _purchase(connection: Connection) -> Ask:
    def ask(work: list[str]) -> str:
        token, seat = work
        status, body = connection.ask(request("POST", "/api/reserve", token, {"seat_id": seat}))
        if status != 200:
            return _outcome(status, body)
        order_id = json.loads(body)["data"]["order_id"]
        return _outcome(*connection.ask(request("POST", "/api/pay", token, {"order_id": order_id})))

    return ask


def _scan(connection: Connection) -> Ask:
    def ask(work: list[str]) -> str:
        token, qr, hall = work
        status, body = connection.ask(request("POST", "/api/verify", token, {"qr_payload": qr, "hall_id": hall}))
        result = json.loads(body)["data"]["result"] if status == 200 else ""
        return "ok" if result == "SUCCESS" else result or _outcome(status, body)

    return ask


def _get(connection: Connection) -> Ask:
    def ask(work: list[str]) -> str:
        token, path = work
        return _outcome(*connection.ask(request("GET", path, token)))

    return ask


def _outcome(status: int, body: bytes) -> str:
    return "ok" if status < 300 else f"{status} {json.loads(body).get('error_code')}"


HTTP: Mapping[str, Callable[[Connection], Ask]] = {
    "reserve": _reserve,
    "purchase": _purchase,
    "scan": _scan,
    "get": _get,
}


def _grpc_reserve(address: str, credential: str) -> Ask:
    stub = InventoryStub(grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]))  # type: ignore[no-untyped-call]
    metadata = [("authorization", credential)]

    def ask(work: list[str]) -> str:
        user, seat, hold = work
        asked = pb.ReserveSeatRequest(seat_id=seat, user_id=user, hold_id=hold, ttl_seconds=TTL_SECONDS)
        try:
            stub.ReserveSeat(asked, timeout=SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "ok"

    return ask


def _asks(task: Mapping[str, Any]) -> list[Ask]:
    if task["verb"] == "ReserveSeat":
        addresses = task["address"].split(",")  # of each process, threads in turn
        return [_grpc_reserve(addresses[n % len(addresses)], task["credential"]) for n in range(task["threads"])]
    return [HTTP[task["verb"]](Connection(task["address"])) for _ in range(task["threads"])]


def _work_off(ask: Ask, work: list[Any], deadline: float, once: bool) -> list[tuple[str, float]]:
    done: list[tuple[str, float]] = []
    for item in work:
        called = time.perf_counter()
        if called > deadline:
            return done
        done.append((ask(item), time.perf_counter() - called))
    if not once:
        done.append(("work ran out", 0.0))
    return done


def _worked(task: Mapping[str, Any]) -> dict[str, Any]:
    """Connect, wait for the word, work; what came of it."""
    asks, works = _asks(task), [task["work"][n :: task["threads"]] for n in range(task["threads"])]
    print('"ready"', flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    deadline = began + task["seconds"]
    with ThreadPoolExecutor(len(asks)) as pool:
        running = [
            pool.submit(_work_off, ask, work, deadline, task["once"]) for ask, work in zip(asks, works, strict=True)
        ]
        done = [answer for thread in running for answer in thread.result()]
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "outcomes": Counter(outcome for outcome, _ in done), "latencies": [s for _, s in done]}


def main() -> None:
    """Task after task, until there are no more."""
    while task := sys.stdin.readline():
        print(json.dumps(_worked(json.loads(task))), flush=True)


if __name__ == "__main__":
    main()
