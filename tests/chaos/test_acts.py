"""The acts of a seed, and the proxies that cut the links."""

from __future__ import annotations

import select
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos import __main__ as command
from tests.chaos.nemesis import KINDS, Act, plan
from tests.support import network_cables, queue_admin, small_disk
from tests.support.brokers import Broker
from tests.support.http_servers import AnsweringServer
from tests.support.running_stack import native_only
from tests.support.silent_proxy import SilentProxy
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chaos

HOUR = 3600.0
LOST_SECONDS = 0.5


def test_acts_of_a_seed_are_always_the_same() -> None:
    assert plan(7, HOUR) == plan(7, HOUR)
    assert plan(7, HOUR) != plan(8, HOUR)


@pytest.mark.parametrize("seed", range(3))
def test_an_hour_has_every_kind_of_act_several_times(seed: int) -> None:
    acts = plan(seed, HOUR)
    counts = Counter(part.kind for act in acts for part in act.parts)
    assert counts.keys() == KINDS.keys()
    assert max(counts.values()) - min(counts.values()) <= 1
    assert min(counts.values()) > 5
    assert sum(len(act.parts) == 2 for act in acts) > 5, "some acts come in pairs"
    assert all(len({part.target for part in act.parts}) == len(act.parts) for act in acts)


@pytest.mark.parametrize("needed", [0, 1, 3, 8])
def test_shortest_failing_prefix_of_the_acts_is_found(
    needed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run fails once it has `needed` acts."""

    def run(_seed: int, _seconds: float, acts: Sequence[Act]) -> Any:
        return SimpleNamespace(has_failed=len(acts) >= needed)

    monkeypatch.setattr(command, "_run", run)
    failed: Any = SimpleNamespace(seed=1, acts=plan(1, HOUR)[:8])
    command._print_prefix(failed)
    assert f"shortest failing prefix: {needed} acts" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["ha", "docker"])
def test_command_refuses_a_stack_whose_processes_it_cannot_disturb(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "CHOICE", SimpleNamespace(kind=kind))
    monkeypatch.setattr("sys.argv", ["chaos"])
    assert command.run() == 1
    assert f"STACK={kind}" in capsys.readouterr().err


@pytest.mark.skipif(bool(small_disk.find_obstacle()), reason=small_disk.find_obstacle())
@pytest.mark.parametrize("free", [0, 400_000])
def test_disk_is_full_until_the_end_of_the_block(tmp_path: Path, free: int) -> None:
    with small_disk.small_disk(tmp_path / "disk", 1) as disk:
        with small_disk.filled(disk, free), pytest.raises(OSError, match="No space left"):
            (disk / "file").write_bytes(bytes(free + 100_000))
        (disk / "file").write_bytes(bytes(500_000))
    assert not any((tmp_path / "disk").iterdir()), "it is unmounted"


@native_only("the command runs on this machine")
def test_broker_that_blocks_publishers_counts_as_not_recovered(broker: Broker) -> None:
    assert queue_admin.accepts_messages(broker)
    try:
        broker.program.run_rabbitmqctl("set_vm_memory_high_watermark", "absolute", "1MB")
        wait_until(lambda: not queue_admin.accepts_messages(broker), what="it blocks publishers")
    finally:
        broker.program.run_rabbitmqctl("set_vm_memory_high_watermark", "absolute", "512MB")
    wait_until(lambda: queue_admin.accepts_messages(broker), what="it accepts messages again")


def is_reset(client: socket.socket) -> bool:
    """Return whether the connection has ended with RST."""
    try:
        return client.send(b"x") == 0
    except ConnectionError:
        return True


def test_proxy_resets_old_and_new_connections_until_take_over() -> None:
    with (
        AnsweringServer() as server,
        SilentProxy(lambda: socket.create_connection(("127.0.0.1", server.port))) as proxy,
    ):
        address = ("127.0.0.1", proxy.port)
        with socket.create_connection(address) as old:
            proxy.reset()
            wait_until(lambda: is_reset(old), what="the old connection is reset")
        with socket.create_connection(address) as new:
            wait_until(lambda: is_reset(new), what="the new connection is reset")
        proxy.take_over()
        assert _get(address).startswith(b"HTTP/1.1 200")


@pytest.mark.skipif(bool(network_cables.find_obstacle()), reason=network_cables.find_obstacle())
def test_connection_survives_a_cable_that_is_pulled() -> None:
    with network_cables.Cable() as cable, cable.listen() as listener, ExitStack() as opened:
        address = listener.getsockname()
        client = opened.enter_context(socket.create_connection(address))
        server, _ = listener.accept()
        opened.enter_context(server)
        cable.pull()
        client.sendall(b"x")
        with pytest.raises(TimeoutError):
            socket.create_connection(address, timeout=LOST_SECONDS)
        assert not select.select([server], [], [], 0)[0]
        cable.plug()
        assert server.recv(1) == b"x"


def test_proxy_delays_all_data() -> None:
    with (
        AnsweringServer() as server,
        SilentProxy(lambda: socket.create_connection(("127.0.0.1", server.port))) as proxy,
    ):
        proxy.delay_seconds = 0.2
        began = time.monotonic()
        assert _get(("127.0.0.1", proxy.port)).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - began >= 2 * proxy.delay_seconds, "the request and its answer are late"


def _get(address: tuple[str, int]) -> bytes:
    with socket.create_connection(address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return client.recv(65536)
