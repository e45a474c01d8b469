"""Port claims, processes of the harness and of others, and the leftovers of a crashed run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from harness import StackError, runtime
from harness.runtime import container_engine, packages, ports, process, supervisor
from harness.runtime.cleanup import end_leftovers, take_down
from harness.runtime.postgres import remove_stale_pid_file
from harness.runtime.process import Identity
from harness.runtime.program import Program
from harness.runtime.run_directory import Record, RunDir
from harness.runtime.supervisor import Supervisor
from tests.support.http_servers import AnsweringServer

pytestmark = pytest.mark.unit

NESTED = """
import subprocess, sys
print(subprocess.Popen(["sleep", "60"], start_new_session=True).pid, flush=True)
sys.stdin = None
import signal; signal.pause()
"""


@pytest.fixture
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate claims file for this test."""
    path = tmp_path / "claims.json"
    monkeypatch.setattr(ports, "CLAIMS", path)
    monkeypatch.setattr(ports, "STACKS", tmp_path / "stacks.json")
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


# ── ports


@pytest.mark.parametrize("reuse_port", [False, True])
def test_taken_port_is_replaced_by_a_fallback(claims: Path, reuse_port: bool) -> None:
    with listening(reuse_port) as server:
        taken: int = server.getsockname()[1]
        (moved,) = ports.claim([taken])
    assert moved in ports.FALLBACK_PORTS


def test_free_port_is_claimed_once(claims: Path) -> None:
    with listening() as server:
        free: int = server.getsockname()[1]
    first, second = ports.claim([free, free])
    assert first == free
    assert second in ports.FALLBACK_PORTS
    ports.release([first, second])
    assert ports.claim([free]) == [free]


def test_claim_ends_with_its_process(claims: Path, stranger: subprocess.Popen[bytes]) -> None:
    with listening() as server:
        free: int = server.getsockname()[1]
    other = Identity.of(stranger.pid)
    claims.write_text(f'{{"{free}": [{other.pid}, {other.started}]}}')
    assert ports.claim([free]) != [free]
    stranger.kill()
    stranger.wait()
    assert ports.claim([free]) == [free]


@pytest.mark.parametrize("place", ["program", "replica"])
def test_ports_of_a_detached_stack_stay_claimed_until_it_is_down(claims: Path, run_dir: RunDir, place: str) -> None:
    """The process that claimed them has ended, and the program that listened there was killed."""
    with listening() as server:
        free: int = server.getsockname()[1]
    own = {"fake-smu": {6001: free}} if place == "program" else {}
    run_dir.write_stack("native", own, None)
    ports.register(run_dir)
    replica = {"6001": free} if place == "replica" else {}
    left = spawn(run_dir)
    run_dir.write_record(Record("fake-smu-2", left.pid, left.started, "running", ports=replica))
    assert ports.claim([free]) != [free]
    process.kill(left)
    run_dir.write_record(Record("fake-smu-2", left.pid, left.started, "killed", ports=replica))
    assert ports.claim([free]) != [free], "the killed program can be started again"
    take_down(run_dir)
    assert ports.claim([free]) == [free]


# ── readiness


@pytest.fixture
def healthy_stranger() -> Iterator[int]:
    """A server of another stack. Returns its port."""
    with AnsweringServer() as server:
        yield server.port


@pytest.mark.parametrize(
    ("code", "seconds", "words"),
    [
        ("import signal; signal.pause()", 0.5, "not ready after"),  # starts slowly, or failed to bind and runs on
        ("raise SystemExit('EADDRINUSE')", 30, "ended while starting"),
        (
            "import socket, signal; s = socket.create_server(('127.0.0.1', {own})); signal.pause()",
            0.5,
            "not ready after",
        ),
    ],
    ids=["silent", "ended", "only one of two ports"],
)
def test_answer_of_another_process_is_not_readiness(
    run_dir: RunDir, monkeypatch: pytest.MonkeyPatch, healthy_stranger: int, code: str, seconds: float, words: str
) -> None:
    monkeypatch.setattr(supervisor, "START_SECONDS", seconds)
    with listening() as server:
        own = server.getsockname()[1]
    argv = (sys.executable, "-c", code.format(own=own))
    program = Program("fake-smu", argv, {}, {50051: own, 6001: healthy_stranger}, (healthy_stranger, "/health"))
    stack = Supervisor(run_dir, {"fake-smu": program}, quiet=True)
    with pytest.raises(StackError, match=f"{words}.*, because another process listens on port {healthy_stranger}"):
        stack.start("fake-smu")
    assert stack.state("fake-smu") != "running"
    take_down(run_dir)


SERVER = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
HTTPServer(("127.0.0.1", {port}), Healthy).serve_forever()"""


def test_only_a_process_that_died_is_restarted(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `restart: unless-stopped` in containers."""
    programs = {}
    for name in ("died", "stopped"):
        with listening() as server:
            port = server.getsockname()[1]
        argv = (sys.executable, "-c", SERVER.format(port=port))
        programs[name] = Program(name, argv, {}, {80: port}, (port, "/health"))
    stack = Supervisor(run_dir, programs, quiet=True)
    stack.start_all(["died", "stopped"])
    process.kill(run_dir.read_record("died").identity)
    stack.stop("stopped")
    starts, is_ready, start = [], threading.Event(), stack.start

    def start_slowly(name: str) -> None:
        starts.append(name)
        assert is_ready.wait(30)
        start(name)

    monkeypatch.setattr(stack, "start", start_slowly)
    for _ in range(3):
        stack.restart_dead()
    threads = sum(thread.name == "restart-died" for thread in threading.enumerate())
    assert process.wait_for(lambda: len(starts) == threads, seconds=30)
    is_ready.set()
    assert process.wait_for(lambda: stack.state("died") == "running", seconds=30)
    assert starts == ["died"], "a call during the start begins no second one"
    assert stack.state("stopped") == "stopped"
    assert len(process.find_leftovers(run_dir.path)) == 1
    take_down(run_dir)


class FailsOnce(Program):
    """A program whose process runs, but whose first start cannot be completed, for example because a disk is full."""

    failures = 1

    def after_ready(self) -> None:
        """Raise StackError once."""
        self.failures -= 1
        if self.failures >= 0:
            raise StackError("the disk is full")


def test_process_whose_restart_failed_is_restarted_again(run_dir: RunDir) -> None:
    with listening() as server:
        port = server.getsockname()[1]
    argv = (sys.executable, "-c", SERVER.format(port=port))
    stack = Supervisor(run_dir, {"it": FailsOnce("it", argv, {}, {80: port}, (port, "/health"))}, quiet=True)
    with pytest.raises(StackError, match="disk is full"):
        stack.start("it")
    process.kill(run_dir.read_record("it").identity)
    stack.program("it").failures = 1  # type: ignore[attr-defined]  # a FailsOnce

    def is_running() -> bool:
        stack.restart_dead()
        return stack.state("it") == "running"

    assert process.wait_for(is_running, seconds=20)
    take_down(run_dir)


class HangsOnce(Program):
    """A program whose second start hangs."""

    starts = 0

    def prepare(self, env: Mapping[str, str]) -> None:
        """Count the start."""
        self.starts += 1

    def is_ready(self) -> bool:
        """Return False in the second start."""
        return self.starts != 2 and super().is_ready()


def test_process_that_hangs_in_its_restart_is_started_again(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "RESTART_SECONDS", 2.0)
    with listening() as server:
        port = server.getsockname()[1]
    argv = (sys.executable, "-c", SERVER.format(port=port))
    program = HangsOnce("it", argv, {}, {80: port}, (port, "/health"))
    stack = Supervisor(run_dir, {"it": program}, quiet=True)
    stack.start("it")
    process.kill(run_dir.read_record("it").identity)

    def is_running() -> bool:
        stack.restart_dead()
        return stack.state("it") == "running"

    assert process.wait_for(is_running, seconds=30)
    assert program.starts >= 3
    take_down(run_dir)


def test_port_of_a_child_counts_as_own(run_dir: RunDir) -> None:
    """A server of several workers listens in its children, which may have left the session."""
    listen = "import socket,signal; s=socket.create_server(('127.0.0.1',0)); print(s.getsockname()[1],flush=True)"
    nested = f"import subprocess,sys; subprocess.run([sys.executable,'-c',{listen + '; signal.pause()'!r}])"
    leader = spawn(run_dir, sys.executable, "-c", nested)
    log = run_dir.logs / "it.log"
    assert process.wait_for(lambda: log.read_text().endswith("\n"), seconds=10)
    port = int(log.read_text())
    assert process.listens(leader, [port])
    assert not process.listens(leader, [port, 1])
    process.kill(leader)
    assert not process.listens(leader, [port])


# ── processes


def test_process_with_a_reused_pid_is_not_killed(stranger: subprocess.Popen[bytes]) -> None:
    earlier = Identity(stranger.pid, psutil.Process(stranger.pid).create_time() - 60)
    assert not earlier.is_alive()
    process.kill(earlier)
    process.terminate(earlier, signal.SIGTERM, grace=1)
    assert stranger.poll() is None


def test_kill_includes_children_that_left_the_session(run_dir: RunDir) -> None:
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


def test_missing_command_is_named(run_dir: RunDir) -> None:
    with pytest.raises(StackError, match="no-such-command"):
        spawn(run_dir, "no-such-command")


# ── leftovers


def test_only_orphans_of_this_run_directory_are_killed(run_dir: RunDir, stranger: subprocess.Popen[bytes]) -> None:
    orphan = spawn(run_dir)
    other_dir = RunDir(run_dir.path.parent / "other")
    other_dir.create()
    neighbour = spawn(other_dir)
    assert take_down(run_dir) == 1
    assert not orphan.is_alive()
    assert neighbour.is_alive()
    assert stranger.poll() is None
    assert take_down(other_dir) == 1


def test_process_that_an_orphan_starts_meanwhile_is_killed(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    first = spawn(run_dir)
    later: list[Identity] = []
    kill_all = process.kill_all

    def start_one_and_kill(processes: list[psutil.Process]) -> None:
        if not later:
            later.append(spawn(run_dir))
        kill_all(processes)

    monkeypatch.setattr(process, "kill_all", start_one_and_kill)
    assert take_down(run_dir) == 2
    assert not first.is_alive()
    assert not later[0].is_alive()


def test_second_stack_in_a_used_directory_is_refused(run_dir: RunDir) -> None:
    run_dir.write_stack("native", {}, Identity.of(os.getpid()))
    with pytest.raises(StackError, match="already runs"):
        end_leftovers(run_dir)
    with pytest.raises(StackError, match="already runs"):
        runtime.up(run_dir.path)


def test_stack_of_a_dead_owner_is_removed(run_dir: RunDir) -> None:
    left = spawn(run_dir)
    run_dir.write_record(Record("it", left.pid, left.started, "running"))
    run_dir.write_stack("native", {}, Identity(os.getpid(), 1.0))
    end_leftovers(run_dir)
    assert not left.is_alive()
    assert run_dir.read_stack() is None


def test_detached_stack_exists_while_one_of_its_processes_runs(run_dir: RunDir) -> None:
    left = spawn(run_dir)
    run_dir.write_record(Record("it", left.pid, left.started, "running"))
    run_dir.write_stack("native", {}, None)
    assert run_dir.is_occupied()
    process.kill(left)
    assert not run_dir.is_occupied()
    assert run_dir.read_record("it").observed_state == "died"


@pytest.mark.claim("sql/stop-keeps-data")
def test_volumes_deletes_only_files_of_the_harness(run_dir: RunDir) -> None:
    data, other = run_dir.path / "postgres" / "data", run_dir.path / "precious"
    data.mkdir(parents=True)
    other.touch()
    take_down(run_dir)
    assert data.exists()
    take_down(run_dir, volumes=True)
    assert not data.exists()
    assert other.exists()


@pytest.mark.parametrize("content", ["{pid}\n/elsewhere\n", "4194999\n", ""])
def test_postmaster_pid_of_a_dead_server_is_removed(
    tmp_path: Path, content: str, stranger: subprocess.Popen[bytes]
) -> None:
    file = tmp_path / "postmaster.pid"
    file.write_text(content.format(pid=stranger.pid))
    remove_stale_pid_file(tmp_path)
    assert not file.exists()


@pytest.mark.parametrize(
    ("wanted", "words"), [("docker", "STACK=docker: there is no `docker`"), ("podman", "native, ha, docker or auto")]
)
def test_unavailable_kind_of_stack_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: str, words: str
) -> None:
    monkeypatch.setenv("STACK", wanted)
    monkeypatch.setattr(container_engine, "find_problem", lambda: "there is no `docker` command on this machine")
    with pytest.raises(StackError, match=words):
        runtime.up(tmp_path)


@pytest.mark.parametrize(
    ("broker", "problem", "kind", "reason"),
    [
        ("RabbitMQ is here", None, "native", "auto: RabbitMQ is here"),
        (None, None, "docker", "no RabbitMQ here, and a container engine"),
        (None, "there is no engine", "native", "no RabbitMQ here, and there is no engine"),
    ],
)
def test_auto_chooses_an_available_kind_and_gives_the_reason(
    monkeypatch: pytest.MonkeyPatch, broker: str | None, problem: str | None, kind: str, reason: str
) -> None:
    monkeypatch.delenv("STACK", raising=False)
    monkeypatch.setattr(packages, "find_broker_source", lambda: broker)
    monkeypatch.setattr(container_engine, "find_problem", lambda: problem)
    chosen = container_engine.choose()
    assert chosen.kind == kind
    assert reason in chosen.reason


def test_unknown_service_is_refused_with_the_known_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STACK", "native")
    monkeypatch.setenv("HOLD_TTL_SECONDS", "8")
    with pytest.raises(StackError, match=r"'order'.*order-service"):
        runtime.up(tmp_path, only=["order"])
    assert not RunDir(tmp_path).is_occupied()
    assert "not used: HOLD_TTL_SECONDS (environment)" in capsys.readouterr().err


def test_attach_without_a_stack_names_the_command_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="python -m harness up"):
        runtime.attach(tmp_path)
