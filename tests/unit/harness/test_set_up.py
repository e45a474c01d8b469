"""`make setup` installs what is missing, shows progress, and prints what is installed."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import harness.__main__ as command_line
from harness import StackError, runtime
from harness.runtime import compose, container_engine, packages, process_plan, variables
from harness.runtime.cleanup import take_down
from harness.runtime.native import NativeStack
from harness.runtime.progress import report_every
from harness.runtime.rabbitmq import plan_rabbitmq
from harness.runtime.run_directory import RunDir
from harness.runtime.stack import COMPOSE

pytestmark = pytest.mark.unit


@pytest.fixture
def user_without_rights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An ordinary user without sudo, RabbitMQ or Docker. Returns the only folder in PATH."""
    monkeypatch.delenv("STACK", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(packages, "find_broker", lambda: None)
    container_engine.find_problem.cache_clear()
    return tmp_path


def add_program(folder: Path, name: str) -> None:
    (folder / name).write_text("#!/bin/sh\nexit 1\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("manager", "command"),
    [
        ("apt-get", "Type: sudo apt-get install --no-install-recommends rabbitmq-server"),
        ("brew", "Type: brew install rabbitmq"),
        ("", "Install Docker, or Erlang"),
    ],
)
def test_without_root_one_line_says_what_to_type(user_without_rights: Path, manager: str, command: str) -> None:
    if manager:
        add_program(user_without_rights, manager)
    with pytest.raises(StackError) as refused:
        packages.ensure_broker()
    assert command in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_broker_is_reported_before_ports_are_chosen(
    user_without_rights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """apt needs some seconds for RabbitMQ. Another stack could take ports that were chosen before."""
    chosen: list[object] = []
    monkeypatch.setattr(NativeStack, "assign_ports", lambda *given: chosen.append(given))
    with pytest.raises(StackError, match="RabbitMQ is not installed"):
        runtime.up(tmp_path / "run", only=["inventory-service"])
    assert not chosen


@pytest.mark.parametrize(
    ("names", "is_needed"),
    [(["rabbitmq"], True), (["api-gateway"], True), (["user-service", "event-service"], False), (["postgres"], False)],
)
def test_rabbitmq_is_installed_only_for_services_that_need_it(names: list[str], is_needed: bool) -> None:
    values = variables.resolve({}, {}, compose.variables_of(COMPOSE))
    assert process_plan.needs_broker(compose.load(COMPOSE, values), names) is is_needed


def test_setup_lists_what_is_installed(
    user_without_rights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = Path("/usr/lib/rabbitmq/lib/rabbitmq_server-4.0.5/sbin/rabbitmq-server")
    monkeypatch.setattr(packages, "find_broker", lambda: broker)
    monkeypatch.setattr("sys.argv", ["harness", "setup"])
    assert command_line.main() == 0
    printed = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    assert printed["RabbitMQ"] == "4.0.5"
    assert printed["PostgreSQL"].startswith("16.")
    assert printed["Python"].startswith("3.")
    assert printed["Stack"] == "native,"


def test_setup_continues_when_apt_has_no_etcd(
    user_without_rights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(package: str) -> bool:
        raise StackError(f"no package {package}")

    add_program(user_without_rights, "apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(packages, "_install", refuse)
    monkeypatch.setattr(packages, "find_broker", lambda: Path("/opt/rabbitmq/sbin/rabbitmq-server"))
    monkeypatch.setattr("sys.argv", ["harness", "setup"])
    assert command_line.main() == 0
    assert "not installed, so this machine runs no cluster" in capsys.readouterr().out


def test_setup_without_a_broker_takes_docker(
    user_without_rights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(container_engine, "find_problem", lambda: None)
    monkeypatch.setattr("sys.argv", ["harness", "setup"])
    assert command_line.main() == 0
    assert "docker, because STACK=auto: no RabbitMQ here" in capsys.readouterr().out


def test_a_long_step_reports_that_it_is_running() -> None:
    reported, lines = threading.Event(), []

    def report(line: str) -> None:
        lines.append(line)
        reported.set()

    with report_every("installing", report, seconds=0.01):
        assert reported.wait(timeout=10)
    assert lines[0] == "installing, 0 s"
    reported.clear()
    assert not reported.wait(timeout=0.1), "nothing is reported after the step"


def test_a_short_step_reports_nothing() -> None:
    lines: list[str] = []
    with report_every("installing", lines.append, seconds=60):
        pass
    assert lines == []


@pytest.mark.parametrize("action", [runtime.up, lambda path: take_down(RunDir(path))], ids=["up", "down"])
def test_a_read_only_run_directory_is_refused_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, action: Callable[[Path], object]
) -> None:
    """Root may write to every folder except on a read-only file system, so the answer of access(2) is replaced."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(StackError, match=r"cannot be written.*TR_RUN_DIR=/tmp"):
        action(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_the_demo_runs_in_a_folder_of_the_run_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[Path] = []

    def up(path: Path, **_: object) -> contextlib.AbstractContextManager[None]:
        started.append(path)
        return contextlib.nullcontext()

    monkeypatch.setenv("TR_RUN_DIR", str(tmp_path))
    monkeypatch.setattr(runtime, "up", up)
    with runtime.up_fresh("demo", env={}):
        assert started == [tmp_path / "demo"]


def test_a_machine_without_the_name_localhost_gets_the_line_to_add(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A minimal Debian 12 has no /etc/hosts, and RabbitMQ does not start without this name."""

    def resolve(name: str) -> str:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "gethostbyname", resolve)
    monkeypatch.setattr(packages, "find_broker", lambda: Path("/usr/sbin/rabbitmq-server"))
    program = plan_rabbitmq({5672: 5672, 25672: 25672, 4369: 4369}, tmp_path, "tester", "tester-pass")
    with pytest.raises(StackError, match=r"Add the line `127.0.0.1 localhost` to /etc/hosts"):
        program.prepare({})
