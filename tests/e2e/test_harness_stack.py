"""The harness with real servers: a killed process starts again on its port and with its data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event, Thread, Timer
from uuid import uuid4

import psutil
import psycopg2
import pytest
import requests

from harness import Stack, StackError, runtime
from harness.command_line import READER_GONE
from harness.runtime import compose, container_engine, process, variables
from harness.runtime.cleanup import take_down
from harness.runtime.compose import ROOT
from harness.runtime.process import Identity, find_leftovers
from harness.runtime.run_directory import RunDir
from tests.support.running_stack import IN_CONTAINERS, native_only

pytestmark = pytest.mark.e2e

FOLLOW_SECONDS = 15
INFRASTRUCTURE = ["postgres", "fake-smu"]  # without RabbitMQ, which starts slowly and is covered by test_outages


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A separate small stack for this module."""
    with runtime.up(tmp_path_factory.mktemp("stack"), only=INFRASTRUCTURE) as running:
        yield running


def sql(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def harness(run_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", "--run-dir", str(run_dir), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.claim("architecture/database-per-service", "schema/database-per-service")
@native_only("each database is a server of its own")
def test_no_role_reaches_the_database_of_another(bare: Stack) -> None:
    own, other = bare.dsn("order-service"), bare.dsn("users_db")
    assert sql(own, "SELECT current_user, current_database()") == [("order_svc_user", "orders_db")]
    for database in ("users_db", "postgres", "template1"):
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            psycopg2.connect(own.replace("orders_db", database))
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(other.replace(other.split(":")[2].split("@")[0], "wrong"))


@native_only("a container listens on its own addresses")
def test_server_is_durable_and_listens_on_the_loopback_only(stack: Stack) -> None:
    for name, value in {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}.items():
        assert sql(stack.admin_dsn("postgres"), f"SHOW {name}") == [(value,)]
    listening = {
        found.laddr.ip
        for name in ("postgres", "rabbitmq", "epmd", "fake-smu")
        for found in psutil.Process(stack.run_dir.read_record(name).pid).net_connections()
        if found.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::1"}


@pytest.mark.claim("repository/one-compose-file")
def test_one_file_starts_every_service(stack: Stack) -> None:
    described = compose.load(ROOT / "compose.yaml", variables.resolve({}, {}, frozenset()))
    databases = {name for name, service in described.items() if service.image.startswith("postgres:")}
    assert len(databases) == 5
    for name in databases:
        assert sql(stack.dsn(name), "SELECT 1") == [(1,)]
    processes = described.keys() - databases - {"gateway-config"}  # it ends after it has written its file
    assert {name: stack.state(name) for name in processes} == dict.fromkeys(processes, "running")


@pytest.mark.claim("sql/cleared-volumes-reseed")
def test_deleted_volumes_are_seeded_again(tmp_path: Path) -> None:
    with runtime.up(tmp_path, only=["postgres"]) as first:
        sql(first.dsn("events_db"), "CREATE TABLE kept ()")
        seeded = sql(first.dsn("events_db"), "TABLE events ORDER BY event_id")
        sql(first.dsn("events_db"), "UPDATE events SET name = 'renamed'")
    take_down(RunDir(tmp_path), volumes=True)
    with runtime.up(tmp_path, only=["postgres"]) as again:
        assert sql(again.dsn("events_db"), "SELECT to_regclass('kept')") == [(None,)]
        found = sql(again.dsn("events_db"), "TABLE events ORDER BY event_id")
    assert [row[0] for row in found] == [row[0] for row in seeded]
    assert len(found) == 3
    assert "renamed" not in str(found)


@pytest.mark.claim("sql/stop-keeps-data", "sql/restart-skips-sql")
def test_killed_postgres_restarts_with_its_data(bare: Stack) -> None:
    dsn = bare.dsn("events_db")
    sql(dsn, "CREATE TABLE kept AS SELECT 1 AS one")
    bare.kill("postgres")
    assert bare.state("postgres") == "killed"
    bare.start("postgres")
    assert sql(dsn, "TABLE kept") == [(1,)]


def test_restart_sets_and_removes_overrides(bare: Stack) -> None:
    url = bare.url("fake-smu")
    bare.restart("fake-smu", env={"SMU_API_KEY": "another"})
    assert bare.env("fake-smu")["SMU_API_KEY"] == "another"
    assert bare.url("fake-smu") == url
    bare.restart("fake-smu", env={})
    assert bare.env("fake-smu")["SMU_API_KEY"] != "another"


def test_replica_has_its_own_address_and_is_found_by_attach(bare: Stack) -> None:
    name = bare.start_replica("fake-smu")
    again = runtime.attach(bare.run_dir.path)
    assert again.url(name) != again.url("fake-smu")
    assert requests.get(f"{again.url(name)}/health", timeout=5).status_code == 200
    again.kill(name)
    assert again.state(name) == "killed"
    assert again.state("fake-smu") == "running"


@pytest.mark.claim("log/follow-one-service")
def test_log_of_one_service_can_be_followed(bare: Stack) -> None:
    command = [sys.executable, "-m", "harness", "--run-dir", str(bare.run_dir.path), "logs", "fake-smu", "-f"]
    marked = str(uuid4())
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout
        (limit := Timer(FOLLOW_SECONDS, following.terminate)).start()
        assert any("listening" in line for line in following.stdout), "the earlier lines come first"
        requests.get(f"{bare.url('fake-smu')}/{marked}", timeout=5)
        assert any(marked in line for line in following.stdout)
        limit.cancel()
        following.terminate()


def test_failed_start_shows_the_log_and_leaves_no_process(tmp_path: Path) -> None:
    broken = {"fake-smu": {"PORT": "not-a-port"}}
    with pytest.raises(StackError, match=r"(?s)fake-smu ended while starting.*not-a-port"):
        runtime.up(tmp_path, only=["fake-smu"], overrides=broken)
    assert find_remains(tmp_path) == []


def test_command_line_controls_a_second_stack(bare: Stack, tmp_path: Path) -> None:
    assert harness(tmp_path, "up", "--detach", "--only", "fake-smu").returncode == 0
    status = json.loads(harness(tmp_path, "status", "--json").stdout)
    (smu,) = [row for row in status["processes"] if row["name"] == "fake-smu"]
    assert smu["state"] == "running"
    assert smu["url"] != bare.url("fake-smu")
    assert "already runs" in harness(tmp_path, "up").stderr
    assert harness(tmp_path, "kill", "fake-smu").returncode == 0
    assert "listening" in harness(tmp_path, "logs", "fake-smu").stdout
    assert harness(tmp_path, "down").returncode == 0
    nothing = harness(tmp_path, "down")
    assert (nothing.returncode, nothing.stdout) == (0, f"no stack runs in {tmp_path}\n")
    assert bare.state("fake-smu") == "running"


def test_killed_program_of_a_detached_stack_gets_its_port_back(tmp_path: Path) -> None:
    detached, other = tmp_path / "detached", tmp_path / "other"
    assert harness(detached, "up", "--detach", "--only", "fake-smu").returncode == 0
    url = runtime.attach(detached).url("fake-smu")
    assert harness(detached, "kill", "fake-smu").returncode == 0
    with runtime.up(other, only=["fake-smu"]) as second:
        assert second.url("fake-smu") != url
        assert harness(detached, "start", "fake-smu").returncode == 0
        second.kill("fake-smu")
        assert requests.get(f"{url}/health", timeout=5).status_code == 200
    assert harness(detached, "down").returncode == 0


@pytest.mark.parametrize("is_detached", [False, True])
def test_closed_pipe_ends_a_foreground_stack_only(tmp_path: Path, is_detached: bool) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "harness", "--run-dir", str(tmp_path), "up", "--only", "fake-smu"]
    command += ["--detach"] if is_detached else []
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(writing)
    assert (done.returncode, "Traceback" in done.stderr) == (READER_GONE, False)
    assert bool(find_remains(tmp_path)) is is_detached
    take_down(RunDir(tmp_path))


@native_only("the process of a container has another user")
def test_foreground_stack_restarts_a_process_that_died(tmp_path: Path) -> None:
    """As `restart: unless-stopped` of compose.yaml."""
    directory = RunDir(tmp_path)
    with start_foreground(tmp_path) as started:
        first = directory.read_record("fake-smu").identity
        process.kill(first)
        assert process.wait_for(lambda: is_replaced(directory, first), FOLLOW_SECONDS)
        started.send_signal(signal.SIGTERM)
        assert started.wait(timeout=60) == 0
    assert find_remains(tmp_path) == []


def is_replaced(directory: RunDir, first: Identity) -> bool:
    record = directory.read_record("fake-smu")
    return record.identity != first and record.observed_state == "running"


@native_only("docker compose has the command")
def test_command_runs_with_the_environment_of_a_service(bare: Stack) -> None:
    program = "import os, psycopg2; print(os.environ['DB_NAME'])"
    done = harness(bare.run_dir.path, "exec", "order-service", "python", "-c", program)
    assert (done.returncode, done.stdout) == (0, "orders_db\n")
    for words, message in ((["no-such-program"], "No such file"), ([], "name a command")):
        done = harness(bare.run_dir.path, "exec", "order-service", *words)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_takes_a_foreground_stack_down(tmp_path: Path, number: signal.Signals) -> None:
    with start_foreground(tmp_path) as started:
        started.send_signal(number)
        assert started.wait(timeout=60) == 0
    assert find_remains(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_the_start_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "harness", "--run-dir", str(tmp_path), "up", "--only", "rabbitmq"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr is not None
        assert any("rabbitmq" in line for line in started.stderr)
        started.send_signal(number)
        started.stderr.read()
        assert started.wait(timeout=60) == 130
    assert find_remains(tmp_path) == []


def test_interrupted_start_waits_for_processes_being_launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[Thread] = []
    launching, over = Event(), Event()
    begin, launch = Thread.start, Stack._launch

    def start_and_interrupt(thread: Thread) -> None:
        begin(thread)
        if thread.name == "progress":  # of the build of containers, before anything starts
            return
        threads.append(thread)
        if len(threads) == 1:
            launching.wait(timeout=60)
            raise KeyboardInterrupt

    def launch_late(stack: Stack, name: str) -> Identity:
        launching.set()
        over.wait(timeout=1)  # `over` is set only after the shutdown, which must wait for this launch
        return launch(stack, name)

    with monkeypatch.context() as patched:
        patched.setattr(Thread, "start", start_and_interrupt)
        patched.setattr(Stack, "_launch", launch_late)
        with pytest.raises(KeyboardInterrupt):
            runtime.up(tmp_path, only=["fake-smu"])
    over.set()
    threads[0].join(timeout=60)
    assert not threads[0].is_alive()
    assert find_remains(tmp_path) == []


def test_next_up_kills_the_processes_of_a_killed_harness(tmp_path: Path) -> None:
    with start_foreground(tmp_path) as started:
        orphan = RunDir(tmp_path).read_record("fake-smu").identity
        started.kill()
    assert orphan.is_alive()
    with runtime.up(tmp_path, only=["fake-smu"]) as second:
        assert not orphan.is_alive()
        assert second.state("fake-smu") == "running"


def find_remains(run_dir: Path) -> Sequence[object]:
    """List the processes of a stack that still run, or its containers, running or not."""
    if not IN_CONTAINERS:
        return find_leftovers(run_dir)
    label = f"label={container_engine.PROJECT}={container_engine.Project.of(run_dir).name}"
    return container_engine.run_docker("ps", "-aq", "--filter", label).split()


def start_foreground(run_dir: Path) -> subprocess.Popen[str]:
    """Run `harness up` in the foreground and wait until it has printed its table of addresses."""
    command = [sys.executable, "-m", "harness", "--run-dir", str(run_dir), "up", "--only", "fake-smu"]
    started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert started.stdout is not None
    assert any(line.startswith("api-gateway") for line in started.stdout)
    return started
