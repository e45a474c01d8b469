"""The harness against real servers: what is killed comes back where it was, with its data."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pika
import psutil
import psycopg2
import pytest
import requests

from harness import Stack, StackError, engine
from harness.compose import ROOT
from harness.process import leftovers, wait_for
from harness.rundir import RunDir
from tests.stack import IN_CONTAINERS, native_only

pytestmark = pytest.mark.e2e

INFRASTRUCTURE = ["postgres", "rabbitmq", "fake-smu"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack.up(tmp_path_factory.mktemp("stack"), only=INFRASTRUCTURE) as running:
        yield running


def sql(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def channel(stack: Stack) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
    with closing(pika.BlockingConnection(pika.URLParameters(stack.url("rabbitmq")))) as connection:
        opened = connection.channel()
        opened.confirm_delivery()
        yield opened


def harness(run_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", "--run-dir", str(run_dir), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.claim("1.pattern.3", "3.rules.1")
@native_only("each database is a server of its own")
def test_no_role_reaches_the_database_of_another(stack: Stack) -> None:
    own, other = stack.dsn("order-service"), stack.dsn("users_db")
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
        for found in psutil.Process(stack.run_dir.record(name).pid).net_connections()
        if found.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::1"}


@pytest.mark.claim("14.sql.4", "14.sql.5")
def test_killed_postgres_comes_back_with_its_data(stack: Stack) -> None:
    dsn = stack.dsn("events_db")
    sql(dsn, "CREATE TABLE kept AS SELECT 1 AS one")
    stack.kill("postgres")
    assert stack.state("postgres") == "killed"
    stack.start("postgres")
    assert sql(dsn, "TABLE kept") == [(1,)]


def test_killed_rabbitmq_comes_back_with_its_messages(stack: Stack) -> None:
    queue = "seat.release.parking.queue"
    with channel(stack) as sending:
        sending.basic_publish("", queue, b"kept", pika.BasicProperties(delivery_mode=2), mandatory=True)
    stack.kill("rabbitmq")
    stack.restart("rabbitmq")
    with channel(stack) as receiving:
        assert wait_for(lambda: receiving.basic_get(queue, auto_ack=True)[2] == b"kept", seconds=10)


@pytest.mark.claim("5.abandon.2", "8.queues.3", "8.queues.4", "8.queues.6")
def test_expired_messages_are_dead_lettered_to_the_release_queue(stack: Stack) -> None:
    short = pika.BasicProperties(expiration="1", delivery_mode=2)
    got: set[bytes] = set()
    with channel(stack) as here:
        here.basic_publish("seat.hold.exchange", "seat.hold", b"hold", short, mandatory=True)
        here.basic_publish("", "seat.release.delay.queue", b"delay", short, mandatory=True)

        def both_arrived() -> bool:
            body = here.basic_get("seat.release.queue", auto_ack=True)[2]
            got.update([body] if body else [])
            return got == {b"hold", b"delay"}

        assert wait_for(both_arrived, seconds=10)


def test_restart_lays_an_environment_over_and_lifts_it(stack: Stack) -> None:
    url = stack.url("fake-smu")
    stack.restart("fake-smu", env={"SMU_API_KEY": "another"})
    assert stack.env("fake-smu")["SMU_API_KEY"] == "another"
    assert stack.url("fake-smu") == url
    stack.restart("fake-smu", env={})
    assert stack.env("fake-smu")["SMU_API_KEY"] != "another"


def test_replica_answers_beside_the_original_and_can_be_found(stack: Stack) -> None:
    name = stack.start_replica("fake-smu")
    again = Stack.attach(stack.run_dir.path)
    assert again.url(name) != again.url("fake-smu")
    assert requests.get(f"{again.url(name)}/health", timeout=5).status_code == 200
    again.kill(name)
    assert again.state(name) == "killed"
    assert again.state("fake-smu") == "running"


def test_failing_start_shows_the_end_of_the_log_and_leaves_nothing(tmp_path: Path) -> None:
    broken = {"fake-smu": {"PORT": "not-a-port"}}
    with pytest.raises(StackError, match=r"(?s)fake-smu ended while starting.*not-a-port"):
        Stack.up(tmp_path, only=["fake-smu"], overrides=broken)
    assert remains(tmp_path) == []


@pytest.mark.claim("2.tree.1", "15.tools.3")
def test_command_line_starts_shows_and_ends_a_second_stack_beside_the_first(stack: Stack, tmp_path: Path) -> None:
    assert harness(tmp_path, "up", "--detach", "--only", "fake-smu").returncode == 0
    status = json.loads(harness(tmp_path, "status", "--json").stdout)
    (smu,) = [row for row in status["processes"] if row["name"] == "fake-smu"]
    assert smu["state"] == "running"
    assert smu["url"] != stack.url("fake-smu")
    assert "already runs" in harness(tmp_path, "up").stderr
    assert harness(tmp_path, "kill", "fake-smu").returncode == 0
    assert "listening" in harness(tmp_path, "logs", "fake-smu").stdout
    assert harness(tmp_path, "down").returncode == 0
    nothing = harness(tmp_path, "down")
    assert (nothing.returncode, nothing.stdout) == (0, f"nothing runs in {tmp_path}\n")
    assert stack.state("fake-smu") == "running"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_takes_a_foreground_stack_down(tmp_path: Path, number: signal.Signals) -> None:
    with foreground(tmp_path) as started:
        started.send_signal(number)
        assert started.wait(timeout=60) == 0
    assert remains(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_starting_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "harness", "--run-dir", str(tmp_path), "up", "--only", "rabbitmq"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr is not None
        assert any("rabbitmq" in line for line in started.stderr)
        started.send_signal(number)
        started.stderr.read()
        assert started.wait(timeout=60) == 130
    assert remains(tmp_path) == []


def test_next_up_clears_what_a_killed_harness_left(tmp_path: Path) -> None:
    with foreground(tmp_path) as started:
        orphan = RunDir(tmp_path).record("fake-smu").identity
        started.kill()
    assert orphan.alive()
    with Stack.up(tmp_path, only=["fake-smu"]) as second:
        assert not orphan.alive()
        assert second.state("fake-smu") == "running"


def remains(run_dir: Path) -> list[object]:
    """The processes of a stack that still run, or the containers that still are."""
    label = f"label={engine.PROJECT}={engine.Project.of(run_dir).name}"
    return engine.docker("ps", "-aq", "--filter", label).split() if IN_CONTAINERS else list(leftovers(run_dir))


def foreground(run_dir: Path) -> subprocess.Popen[str]:
    """`harness up` as somebody at a terminal has it, its table of addresses printed."""
    command = [sys.executable, "-m", "harness", "--run-dir", str(run_dir), "up", "--only", "fake-smu"]
    started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert started.stdout is not None
    assert any(line.startswith("api-gateway") for line in started.stdout)
    return started
