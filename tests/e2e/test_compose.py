"""Tests of compose.yaml with Docker Compose: first start, killed containers, replicas, and data that outlives a stop.

They run with STACK=docker. Without an image of Kong, compose.offline.yaml replaces Kong by a fake.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from harness.api_client import Api
from harness.runtime import container_engine, ports, variables
from harness.runtime.compose import ROOT
from harness.runtime.process import wait_for
from tests.support.running_stack import IN_CONTAINERS
from tests.support.service_settings import key_environment

pytestmark = pytest.mark.e2e
if not IN_CONTAINERS:
    pytest.skip("containers are run where STACK=docker", allow_module_level=True)

PUBLISHED = {
    "127.0.0.1:8000:8000": "api-gateway",
    "127.0.0.1:15672:15672": "rabbitmq",
    "127.0.0.1:6001:6001": "fake-smu",
    "127.0.0.1:6002:6002": "fake-stripe",
    "127.0.0.1:3000:3000": "web-client",
}
SEAT = "5ea70001-0000-0000-0000-{:012d}"
SEAT_OF_EVENT_2 = SEAT.replace("5ea70001", "5ea70002")
FRESH = itertools.count(1)
SECONDS = 240.0
MEBIBYTE = 1024**2
INITDB = "/docker-entrypoint-initdb.d/"
AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]


@dataclass(frozen=True)
class Deployment:
    """A Compose project of these files. Two host ports are replaced, because they may be in use."""

    files: tuple[Path, ...]
    env: Path
    gateway: str

    def compose(self, *arguments: str) -> str:
        files = [part for file in self.files for part in ("-f", str(file))]
        where = ["-p", "ticketremaster-e2e", "--project-directory", str(ROOT), "--env-file", str(self.env)]
        return container_engine.run_command([*container_engine.find_compose(), *where, *files, *arguments])

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """Inspect the containers of the project."""
        found = container_engine.run_docker(
            "ps", "-aq", "--filter", f"label={container_engine.PROJECT}=ticketremaster-e2e"
        ).split()
        inspected = json.loads(container_engine.run_docker("inspect", *found)) if found else []
        return [c for c in inspected if not services or c["Config"]["Labels"][container_engine.SERVICE] in services]

    def is_healthy(self) -> bool:
        """Return whether every service is healthy, and every one-time container succeeded."""
        states = [(c["State"].get("Health", {}).get("Status"), c["State"]["ExitCode"]) for c in self.containers()]
        return bool(states) and all(state in (("healthy", 0), (None, 0)) for state in states)

    def up(self, *arguments: str) -> None:
        self.compose("up", "-d", *arguments)
        assert wait_for(self.is_healthy, SECONDS), self.compose("ps")

    def can_buy(self, seat: str) -> bool:
        """Return whether user1 can buy a seat."""
        try:
            buyer = Api(self.gateway).login("user1@example.com")
            held = buyer.reserve(seat)
            return held.status == 200 and buyer.pay(held.data["order_id"]).status == 200
        except (AssertionError, urllib3.exceptions.HTTPError):
            return False

    def balance(self) -> Any:
        return Api(self.gateway).login("user1@example.com").balance()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    home = tmp_path_factory.mktemp("compose")
    free = ports.claim([int(port.rpartition(":")[2]) for port in PUBLISHED])
    text = (ROOT / "compose.yaml").read_text()
    for published, here in zip(PUBLISHED, free, strict=True):
        text = text.replace(published, f"127.0.0.1:{here}:{published.rpartition(':')[2]}")
    (home / "compose.yaml").write_text(text)
    limits = "\nMAX_HOLDS_PER_USER=0\nMAX_TICKETS_PER_USER=0\n"  # one user holds a new seat after each restart
    (home / "env").write_text(variables.render_example(ROOT / ".env.example") + limits)
    offline = [] if container_engine.has_image("kong:3.9") else [ROOT / "compose.offline.yaml"]
    one = Deployment((home / "compose.yaml", *offline), home / "env", f"http://127.0.0.1:{free[0]}")
    try:
        one.up("--build")
        yield one
    finally:
        one.compose("down", "--volumes", "--remove-orphans")
        ports.release(free)


def test_first_start_is_healthy_and_sells_a_seat(deployment: Deployment) -> None:
    assert deployment.is_healthy()
    assert deployment.can_buy(SEAT.format(1))
    assert deployment.balance() == 650


def test_ports_for_browsers_are_published_on_loopback(deployment: Deployment) -> None:
    published = {
        (container["Config"]["Labels"][container_engine.SERVICE], binding["HostIp"])
        for container in deployment.containers()
        for bindings in container["NetworkSettings"]["Ports"].values()
        for binding in bindings or []
    }
    assert published == {(name, "127.0.0.1") for name in PUBLISHED.values()}


@pytest.mark.parametrize("service", ["user-service", "orchestrator-service", "fake-stripe", "web-client"])
def test_image_is_small_and_holds_only_the_program(deployment: Deployment, service: str) -> None:
    """The image has no root user, no compiler, no pip and no tests."""
    [container] = deployment.containers(service)
    assert container["Config"]["User"] == "10001"
    assert container["Config"]["Healthcheck"]["Test"]
    look = (
        "id -u; for c in gcc cc make; do command -v $c; done; "
        "find /app /venv -name 'pip*' -o -name tests -o -name .env; "
        "cd /usr/local; ls -d bin/pip* lib/python3*/ensurepip lib/python3*/site-packages/* 2>/dev/null; true"
    )
    seen = container_engine.run_docker("exec", container["Id"], "sh", "-c", look).split()
    assert [line for line in seen if not line.startswith("/venv/lib/")] == ["10001"]
    base = json.loads(container_engine.run_docker("image", "inspect", "python:3.13-slim-trixie"))[0]["Size"]
    ours = json.loads(container_engine.run_docker("image", "inspect", container["Image"]))[0]["Size"]
    assert ours - base < 120 * MEBIBYTE


def test_a_placeholder_stops_the_service_with_one_line(deployment: Deployment) -> None:
    env = [part for name, value in key_environment("order-service").items() for part in ("-e", f"{name}={value}")]
    env += ["-e", "DB_HOST=db", "-e", "DB_NAME=db", "-e", "DB_USER=me", "-e", "DB_PASS=change_me"]
    command = ["docker", "run", "--rm", *env, "ticketremaster-order", "python", "-m", "services.order.main"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["configuration: DB_PASS still holds its placeholder: put a real value there"]


DATABASE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["orders-db"]
CHECK = [part.replace("$$", "$") for part in DATABASE["healthcheck"]["test"][1:]]
SCRIPTS = [f"{ROOT}/{volume}" for volume in DATABASE["volumes"] if INITDB in volume]


@contextmanager
def run_database(scripts: list[str]) -> Iterator[list[str]]:
    """Run a database container with these init scripts. Yields the beginning of a command inside it."""
    mounts = [part for script in scripts for part in ("-v", script)]
    env = [part for name in ("POSTGRES_DB", "POSTGRES_PASSWORD", "DB_USER") for part in ("-e", f"{name}=orders")]
    options = ["-d", "--restart", DATABASE["restart"], *env, *mounts]
    started = container_engine.run_docker("run", *options, DATABASE["image"], "postgres").strip()
    try:
        yield ["docker", "exec", started]
    finally:
        container_engine.run_docker("rm", "-f", "-v", started)


def test_a_database_with_a_failed_first_start_is_not_healthy(tmp_path: Path) -> None:
    (tmp_path / "10-chassis.sql").write_text("SELECT 1 / 0;")
    role, done = SCRIPTS[0], SCRIPTS[-1]
    with run_database([role, f"{tmp_path}/10-chassis.sql:{INITDB}10-chassis.sql:ro", done]) as inside:
        assert wait_for(lambda: succeeds(*inside, "pg_isready", "-h", "127.0.0.1"), 60), (
            "it restarts and accepts connections"
        )
        assert not succeeds(*inside, *CHECK)
        psql = ["psql", "-U", "postgres", "-d", "orders", "-f", f"{INITDB}90-init_complete.sql"]
        container_engine.run_command([*inside, *psql])
        assert succeeds(*inside, *CHECK)


@pytest.mark.claim("compose/users-db")
def test_only_the_role_of_a_database_logs_in_over_the_network() -> None:
    """The role is no superuser, and the superuser has no password. The address is the one that other containers use."""
    with run_database(SCRIPTS) as inside:
        assert wait_for(lambda: succeeds(*inside, *CHECK), 60)
        command = "PGPASSWORD=$POSTGRES_PASSWORD psql -h $(hostname -i) -d orders -Atc 'SHOW is_superuser' -U "
        assert container_engine.run_command([*inside, "sh", "-c", f"{command} orders"]) == "off\n"
        assert not succeeds(*inside, "sh", "-c", f"{command} postgres")


def succeeds(*command: str) -> bool:
    """Return whether a command exits with status 0."""
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def test_a_changed_limit_reaches_a_running_gateway(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "env").write_text(f"{deployment.env.read_text()}\nRATE_LIMIT_PUBLIC_PER_MINUTE=2\n")
    replace(deployment, env=tmp_path / "env").up()
    answers = [Api(deployment.gateway).post("/api/auth/login", {}).status for _ in range(5)]
    deployment.up()
    assert answers[-1] == 429, "two a minute, and at most one minute ends during the calls"


def test_a_changed_file_restarts_its_service_in_development(deployment: Deployment, tmp_path: Path) -> None:
    text = re.sub(r"127\.0\.0\.1:\d+:", "127.0.0.1::", (ROOT / "compose.dev.yaml").read_text())
    (tmp_path / "compose.dev.yaml").write_text(text)
    developed = replace(deployment, files=(*deployment.files, tmp_path / "compose.dev.yaml"))
    developed.up("--no-deps", "event-service")
    [container] = developed.containers("event-service")
    assert "a file changed, restarting" not in read_output(container)
    (ROOT / "services" / "event" / "main.py").touch()
    assert wait_for(lambda: "a file changed, restarting" in read_output(container), 30)
    assert wait_for(lambda: read_output(container).count("starts on port") == 2, 30), "it serves again"
    caller = Api(deployment.gateway).login("user1@example.com")
    assert wait_for(lambda: caller.get("/api/events").status == 200, 30)
    deployment.up("--no-deps", "event-service")


def read_output(container: dict[str, Any]) -> str:
    """Read the output of a container."""
    command = ["docker", "logs", container["Id"]]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout


@pytest.mark.skipif(
    bool(AS_ROOT) and not succeeds(*AS_ROOT, "true"),
    reason="only root can kill the process of a container",
)
def test_every_killed_container_restarts(deployment: Deployment) -> None:
    victims = [c for c in deployment.containers() if c["State"]["Running"]]
    assert len(victims) == 15
    holder = Api(deployment.gateway).login("user1@example.com")
    for victim in victims:
        subprocess.run([*AS_ROOT, "kill", "-9", str(victim["State"]["Pid"])], check=True)
        assert wait_for(lambda victim=victim: has_restarted(victim), 60), victim["Name"]  # type: ignore[misc]
        assert wait_for(lambda: can_hold(holder), 60), victim["Name"]
    assert wait_for(deployment.is_healthy, SECONDS), deployment.compose("ps")
    assert wait_for(lambda: deployment.can_buy(SEAT.format(25)), 60)


def can_hold(holder: Api) -> bool:
    """Return whether a user can reserve a new seat."""
    try:
        return holder.reserve(SEAT_OF_EVENT_2.format(next(FRESH))).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def count_holds(inventory: dict[str, Any]) -> float:
    """Count the seats that one inventory has held since its start."""
    look = "from urllib.request import urlopen; print(urlopen('http://localhost:8080/metrics').read().decode())"
    text = container_engine.run_docker("exec", inventory["Id"], "python", "-c", look)
    return float(re.findall(r"(?m)^inventory_holds_total (\S+)$", text)[0])


def has_restarted(victim: dict[str, Any]) -> bool:
    """Return whether a killed container runs again."""
    now = json.loads(container_engine.run_docker("inspect", victim["Id"]))[0]
    return bool(now["State"]["Running"]) and now["RestartCount"] > victim["RestartCount"]


def test_down_keeps_the_data_and_down_with_volumes_deletes_it(deployment: Deployment) -> None:
    balance = deployment.balance()
    assert balance < 1000
    deployment.compose("down")
    deployment.up()
    assert deployment.balance() == balance
    deployment.compose("down", "--volumes")
    deployment.up()
    assert deployment.balance() == 1000


def test_a_second_replica_of_each_takes_over(deployment: Deployment) -> None:
    both = ("orchestrator-service", "inventory-service")
    deployment.up("--no-recreate", *(part for name in both for part in ("--scale", f"{name}=2")))
    for orchestrator in deployment.containers("orchestrator-service"):
        container_engine.run_docker("restart", orchestrator["Id"])  # so that each connects to both inventories
    assert wait_for(deployment.is_healthy, SECONDS)
    holder, inventories = Api(deployment.gateway).login("user1@example.com"), deployment.containers("inventory-service")
    assert wait_for(lambda: can_hold(holder) and all(map(count_holds, inventories)), 60), "both inventories get calls"
    for service in both:
        container_engine.run_docker(
            "kill", deployment.containers(service)[0]["Id"]
        )  # Compose does not restart a container that `docker kill` stopped
    assert wait_for(lambda: deployment.can_buy(SEAT.format(31)), 60)
    before = count_holds(inventories[1])
    assert wait_for(lambda: can_hold(holder) and count_holds(inventories[1]) > before, 60)


def test_a_suite_runs_in_the_test_image(deployment: Deployment) -> None:
    deployment.compose("build", "tests")
    output = deployment.compose("run", "--rm", "-T", "tests", "pytest", "-q", "tests/unit/order/test_sweeper.py")
    assert re.search(r"\d+ passed", output), output
