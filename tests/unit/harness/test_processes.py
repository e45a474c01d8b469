"""Ports that move, processes that are ours and those that are not, leftovers of a crashed run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness import StackError, runtime
from harness.runtime import container_engine, packages, ports, process
from harness.runtime.cleanup import end_leftovers, take_down
from harness.runtime.postgres import remove_stale_pid_file
from harness.runtime.process import Identity
from harness.runtime.run_directory import Record, RunDir

pytestmark = pytest.mark.unit

NESTED = """
import subprocess, sys
print(subprocess.Popen(["sleep", "60"], start_new_session=True).pid, flush=True)
sys.stdin = None
import signal; signal.pause()
"""


@pytest.fixture
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A claims file of this test's own."""
    path = tmp_path / "claims.json"
    monkeypatch.setattr(ports, "CLAIMS", path)
    return path


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that the harness did not start."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as started:
        yield started
        started.kill()


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    directory = RunDir(tmp_path / "run")
    directory.create()
    return directory


def listening(reuse_port: bool = False) -> socket.socket:
    server = socket.socket()
    if reuse_port:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind(("127.0.0.1", 0))
    server.listen()
    return server


def spawn(run_dir: RunDir, *argv: str) -> Identity:
    return process.spawn(argv or ("sleep", "60"), {}, run_dir.logs / "it.log", run_dir.path)


# ── Ports ──


@pytest.mark.parametrize("reuse_port", [False, True])
def test_taken_port_moves(claims: Path, reuse_port: bool) -> None:
    with listening(reuse_port) as server:
        taken: int = server.getsockname()[1]
        (moved,) = ports.claim([taken])
    assert moved in ports.FALLBACK_PORTS


def test_free_port_is_taken_as_wished_and_not_twice(claims: Path) -> None:
    with listening() as server:
        free: int = server.getsockname()[1]
    first, second = ports.claim([free, free])
    assert first == free
    assert second in ports.FALLBACK_PORTS
    ports.release([first, second])
    assert ports.claim([free]) == [free]


def test_claim_of_a_living_harness_counts_and_of_a_dead_one_does_not(
    claims: Path, stranger: subprocess.Popen[bytes]
) -> None:
    with listening() as server:
        free: int = server.getsockname()[1]
    other = Identity.of(stranger.pid)
    claims.write_text(f'{{"{free}": [{other.pid}, {other.started}]}}')
    assert ports.claim([free]) != [free]
    stranger.kill()
    stranger.wait()
    assert ports.claim([free]) == [free]


# ── Processes ──


def test_reused_process_id_is_not_mistaken(stranger: subprocess.Popen[bytes]) -> None:
    earlier = Identity(stranger.pid, psutil.Process(stranger.pid).create_time() - 60)
    assert not earlier.is_alive()
    process.kill(earlier)
    process.terminate(earlier, signal.SIGTERM, grace=1)
    assert stranger.poll() is None


def test_kill_takes_children_that_left_the_session(run_dir: RunDir) -> None:
    leader = spawn(run_dir, sys.executable, "-c", NESTED)
    log = run_dir.logs / "it.log"
    assert process.wait_for(lambda: log.read_text().endswith("\n"), seconds=10)
    child = Identity.of(int(log.read_text()))
    process.kill(leader)
    assert not leader.is_alive()
    assert not child.is_alive()


def test_process_that_ignores_sigterm_is_killed_after_its_grace(run_dir: RunDir) -> None:
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    leader = spawn(run_dir, sys.executable, "-c", deaf)
    log = run_dir.logs / "it.log"
    assert process.wait_for(lambda: log.read_text() == "1\n", seconds=10)
    process.terminate(leader, signal.SIGTERM, grace=0.2)
    assert not leader.is_alive()


def test_command_that_is_not_there_is_named(run_dir: RunDir) -> None:
    with pytest.raises(StackError, match="no-such-command"):
        spawn(run_dir, "no-such-command")


# ── Leftovers ──


def test_orphan_is_ended_and_a_strangers_process_is_not(run_dir: RunDir, stranger: subprocess.Popen[bytes]) -> None:
    orphan = spawn(run_dir)
    beside = RunDir(run_dir.path.parent / "beside")
    beside.create()
    neighbour = spawn(beside)
    assert take_down(run_dir) == 1
    assert not orphan.is_alive()
    assert neighbour.is_alive()
    assert stranger.poll() is None
    assert take_down(beside) == 1


def test_what_an_orphan_starts_while_it_is_being_ended_is_ended_too(
    run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = spawn(run_dir)
    later: list[Identity] = []
    kill_all = process.kill_all

    def killed(processes: list[psutil.Process]) -> None:
        if not later:
            later.append(spawn(run_dir))
        kill_all(processes)

    monkeypatch.setattr(process, "kill_all", killed)
    assert take_down(run_dir) == 2
    assert not first.is_alive()
    assert not later[0].is_alive()


def test_stack_of_a_living_owner_is_left_alone(run_dir: RunDir) -> None:
    run_dir.write_stack("native", {}, Identity.of(os.getpid()))
    with pytest.raises(StackError, match="already runs"):
        end_leftovers(run_dir)
    with pytest.raises(StackError, match="already runs"):
        runtime.up(run_dir.path)


def test_stack_whose_owner_died_makes_room(run_dir: RunDir) -> None:
    left = spawn(run_dir)
    run_dir.write_record(Record("it", left.pid, left.started, "running"))
    run_dir.write_stack("native", {}, Identity(os.getpid(), 1.0))
    end_leftovers(run_dir)
    assert not left.is_alive()
    assert run_dir.read_stack() is None


def test_detached_stack_lives_as_long_as_a_process_of_it(run_dir: RunDir) -> None:
    left = spawn(run_dir)
    run_dir.write_record(Record("it", left.pid, left.started, "running"))
    run_dir.write_stack("native", {}, None)
    assert run_dir.is_occupied()
    process.kill(left)
    assert not run_dir.is_occupied()
    assert run_dir.read_record("it").observed_state == "died"


@pytest.mark.claim("sql/stop-keeps-data")
def test_down_keeps_data_and_volumes_clears_only_what_is_ours(run_dir: RunDir) -> None:
    data, other = run_dir.path / "postgres" / "data", run_dir.path / "precious"
    data.mkdir(parents=True)
    other.touch()
    take_down(run_dir)
    assert data.exists()
    take_down(run_dir, volumes=True)
    assert not data.exists()
    assert other.exists()


@pytest.mark.parametrize("content", ["{pid}\n/elsewhere\n", "4194999\n", ""])
def test_postmaster_pid_of_a_dead_server_is_forgotten(
    tmp_path: Path, content: str, stranger: subprocess.Popen[bytes]
) -> None:
    file = tmp_path / "postmaster.pid"
    file.write_text(content.format(pid=stranger.pid))
    remove_stale_pid_file(tmp_path)
    assert not file.exists()


@pytest.mark.parametrize(
    ("wanted", "words"), [("docker", "STACK=docker: there is no `docker`"), ("podman", "native, docker or auto")]
)
def test_stack_that_cannot_be_had_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: str, words: str
) -> None:
    monkeypatch.setenv("STACK", wanted)
    monkeypatch.setattr(container_engine, "find_problem", lambda: "there is no `docker` command on this machine")
    with pytest.raises(StackError, match=words):
        runtime.up(tmp_path)


@pytest.mark.parametrize(
    ("broker", "lacking", "kind", "reason"),
    [
        ("RabbitMQ is here", None, "native", "auto: RabbitMQ is here"),
        (None, None, "docker", "no RabbitMQ here, and a container engine"),
        (None, "there is no engine", "native", "no RabbitMQ here, and there is no engine"),
    ],
)
def test_auto_takes_what_the_machine_has_and_says_why(
    monkeypatch: pytest.MonkeyPatch, broker: str | None, lacking: str | None, kind: str, reason: str
) -> None:
    monkeypatch.delenv("STACK", raising=False)
    monkeypatch.setattr(packages, "find_broker_source", lambda: broker)
    monkeypatch.setattr(container_engine, "find_problem", lambda: lacking)
    chosen = container_engine.choose()
    assert chosen.kind == kind
    assert reason in chosen.reason


def test_unknown_service_is_refused_with_the_known_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACK", "native")
    with pytest.raises(StackError, match=r"'order'.*order-service"):
        runtime.up(tmp_path, only=["order"])
    assert not RunDir(tmp_path).is_occupied()


def test_attaching_to_nothing_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="python -m harness up"):
        runtime.attach(tmp_path)
