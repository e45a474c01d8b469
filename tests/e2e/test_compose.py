"""compose.yaml as it stands, by compose itself: from nothing to healthy, deaths, replicas, data that stays.

STACK=docker runs this; where no Kong image is, its stand-in takes its place by compose.offline.yaml.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from collections.abc import Iterator
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

pytestmark = pytest.mark.e2e
if not IN_CONTAINERS:
    pytest.skip("containers are run where STACK=docker", allow_module_level=True)

PUBLISHED = {"127.0.0.1:8000:8000": "api-gateway", "127.0.0.1:15672:15672": "rabbitmq"}
SEAT = "5ea70001-0000-0000-0000-{:012d}"
SEAT_OF_THE_BIG_HALL = SEAT.replace("5ea70001", "5ea70002")
FRESH = itertools.count(1)
SECONDS = 240.0
MEBIBYTE = 1024**2
INITDB = "/docker-entrypoint-initdb.d/"
AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]


@dataclass(frozen=True)
class Deployment:
    """One project of the files as they stand, but for two host ports that may be taken here."""

    files: tuple[Path, ...]
    env: Path
    gateway: str

    def compose(self, *arguments: str) -> str:
        files = [part for file in self.files for part in ("-f", str(file))]
        where = ["-p", "ticketremaster-e2e", "--project-directory", str(ROOT), "--env-file", str(self.env)]
        return container_engine.run_command([*container_engine.find_compose(), *where, *files, *arguments])

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """What the engine knows of the project's containers."""
        found = container_engine.run_docker(
            "ps", "-aq", "--filter", f"label={container_engine.PROJECT}=ticketremaster-e2e"
        ).split()
        known = json.loads(container_engine.run_docker("inspect", *found)) if found else []
        return [c for c in known if not services or c["Config"]["Labels"][container_engine.SERVICE] in services]

    def healthy(self) -> bool:
        """Whether every container runs and is healthy, and what runs once has done so."""
        states = [(c["State"].get("Health", {}).get("Status"), c["State"]["ExitCode"]) for c in self.containers()]
        return bool(states) and all(state in (("healthy", 0), (None, 0)) for state in states)

    def up(self, *arguments: str) -> None:
        self.compose("up", "-d", *arguments)
        assert wait_for(self.healthy, SECONDS), self.compose("ps")

    def buys(self, seat: str) -> bool:
        """Whether user1 gets a seat."""
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
    free = ports.claim([8000, 15672])
    text = (ROOT / "compose.yaml").read_text()
    for published, here in zip(PUBLISHED, free, strict=True):
        text = text.replace(published, f"127.0.0.1:{here}:{published.rpartition(':')[2]}")
    (home / "compose.yaml").write_text(text)
    (home / "env").write_text(variables.render_example(ROOT / ".env.example"))
    offline = [] if container_engine.has_image("kong:3.9") else [ROOT / "compose.offline.yaml"]
    one = Deployment((home / "compose.yaml", *offline), home / "env", f"http://127.0.0.1:{free[0]}")
    try:
        one.up("--build")
        yield one
    finally:
        one.compose("down", "--volumes", "--remove-orphans")
        ports.release(free)


def test_up_from_nothing_is_healthy_and_sells_a_seat(deployment: Deployment) -> None:
    assert deployment.healthy()
    assert deployment.buys(SEAT.format(1))
    assert deployment.balance() == 650


def test_only_the_gateway_and_the_brokers_page_are_published_on_the_loopback(deployment: Deployment) -> None:
    published = {
        (container["Config"]["Labels"][container_engine.SERVICE], binding["HostIp"])
        for container in deployment.containers()
        for bindings in container["NetworkSettings"]["Ports"].values()
        for binding in bindings or []
    }
    assert published == {(name, "127.0.0.1") for name in PUBLISHED.values()}


@pytest.mark.parametrize("service", ["user-service", "orchestrator-service", "fake-stripe"])
def test_image_is_small_and_has_no_root_no_compiler_no_pip_and_no_test(deployment: Deployment, service: str) -> None:
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
    base = json.loads(container_engine.run_docker("image", "inspect", "python:3.11-slim-bookworm"))[0]["Size"]
    ours = json.loads(container_engine.run_docker("image", "inspect", container["Image"]))[0]["Size"]
    assert ours - base < 120 * MEBIBYTE


def test_a_placeholder_stops_the_service_with_one_line(deployment: Deployment) -> None:
    env = [part for name in ("JWT_SECRET", "INTERNAL_JWT_SECRET") for part in ("-e", f"{name}={'x' * 32}")]
    env += ["-e", "DB_HOST=db", "-e", "DB_NAME=db", "-e", "DB_USER=me", "-e", "DB_PASS=change_me"]
    command = ["docker", "run", "--rm", *env, "ticketremaster-order", "python", "-m", "services.order.main"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["configuration: DB_PASS still holds its placeholder: put a real value there"]


def test_a_database_whose_first_start_broke_off_is_never_healthy(tmp_path: Path) -> None:
    database = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["orders-db"]
    check = [part.replace("$$", "$") for part in database["healthcheck"]["test"][1:]]
    (tmp_path / "10-chassis.sql").write_text("SELECT 1 / 0;")
    script = ROOT / "services" / "chassis" / "init_complete.sql"
    mounts = [
        "-v",
        f"{tmp_path}/10-chassis.sql:{INITDB}10-chassis.sql:ro",
        "-v",
        f"{script}:{INITDB}90-init_complete.sql:ro",
    ]
    env = [part for name in ("DB", "USER", "PASSWORD") for part in ("-e", f"POSTGRES_{name}=orders")]
    started = container_engine.run_docker(
        "run", "-d", "--restart", database["restart"], *env, *mounts, database["image"], "postgres"
    )
    inside = ["docker", "exec", started.strip()]
    try:
        assert wait_for(lambda: succeeds(*inside, "pg_isready", "-h", "127.0.0.1"), 60), (
            "it is started again, and answers"
        )
        assert not succeeds(*inside, *check)
        container_engine.run_docker(
            *inside[1:], "psql", "-U", "orders", "-d", "orders", "-f", f"{INITDB}90-init_complete.sql"
        )
        assert succeeds(*inside, *check)
    finally:
        container_engine.run_docker("rm", "-f", "-v", started.strip())


def succeeds(*command: str) -> bool:
    """Whether a command ends with status 0."""
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def test_a_changed_limit_reaches_a_gateway_that_runs(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "env").write_text(f"{deployment.env.read_text()}\nRATE_LIMIT_PUBLIC_PER_MINUTE=2\n")
    replace(deployment, env=tmp_path / "env").up()
    answers = [Api(deployment.gateway).post("/api/auth/login", {}).status for _ in range(5)]
    deployment.up()
    assert answers[-1] == 429, "two a minute, and at most one minute ends in between"


def test_a_changed_file_starts_its_service_anew_in_development(deployment: Deployment, tmp_path: Path) -> None:
    text = re.sub(r"127\.0\.0\.1:\d+:", "127.0.0.1::", (ROOT / "compose.dev.yaml").read_text())
    (tmp_path / "compose.dev.yaml").write_text(text)
    developed = replace(deployment, files=(*deployment.files, tmp_path / "compose.dev.yaml"))
    developed.up("--no-deps", "event-service")
    [container] = developed.containers("event-service")
    assert "starts anew" not in said_by(container)
    (ROOT / "services" / "event" / "main.py").touch()
    assert wait_for(lambda: "starts anew" in said_by(container), 30)
    assert wait_for(lambda: said_by(container).count("listens on port") == 2, 30), "and it serves again"
    staff = Api(deployment.gateway).login("staff@example.com")
    assert wait_for(lambda: staff.get("/api/events").status == 200, 30)
    deployment.up("--no-deps", "event-service")


def said_by(container: dict[str, Any]) -> str:
    """What a container has printed until now."""
    command = ["docker", "logs", container["Id"]]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout


@pytest.mark.skipif(
    bool(AS_ROOT) and not succeeds(*AS_ROOT, "true"),
    reason="a container's process can be killed from outside by root alone",
)
def test_every_container_that_is_killed_comes_back_by_itself(deployment: Deployment) -> None:
    victims = [c for c in deployment.containers() if c["State"]["Running"]]
    assert len(victims) == 14
    holder = Api(deployment.gateway).login("user1@example.com")
    for victim in victims:
        subprocess.run([*AS_ROOT, "kill", "-9", str(victim["State"]["Pid"])], check=True)
        assert wait_for(lambda victim=victim: _restarted(victim), 60), victim["Name"]  # type: ignore[misc]
        assert wait_for(lambda: holds(holder), 60), victim["Name"]
    assert wait_for(deployment.healthy, SECONDS), deployment.compose("ps")
    assert wait_for(lambda: deployment.buys(SEAT.format(25)), 60)


def holds(holder: Api) -> bool:
    """Whether a caller gets a seat that nobody has asked for yet."""
    try:
        return holder.reserve(SEAT_OF_THE_BIG_HALL.format(next(FRESH))).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def held(inventory: dict[str, Any]) -> float:
    """How many seats one inventory has held since it was started."""
    look = "from urllib.request import urlopen; print(urlopen('http://localhost:8080/metrics').read().decode())"
    text = container_engine.run_docker("exec", inventory["Id"], "python", "-c", look)
    return float(re.findall(r"(?m)^inventory_holds_total (\S+)$", text)[0])


def _restarted(victim: dict[str, Any]) -> bool:
    now = json.loads(container_engine.run_docker("inspect", victim["Id"]))[0]
    return bool(now["State"]["Running"]) and now["RestartCount"] > victim["RestartCount"]


def test_down_keeps_the_data_and_down_with_volumes_seeds_anew(deployment: Deployment) -> None:
    spent = deployment.balance()
    assert spent < 1000
    deployment.compose("down")
    deployment.up()
    assert deployment.balance() == spent
    deployment.compose("down", "--volumes")
    deployment.up()
    assert deployment.balance() == 1000


def test_two_replicas_of_each_go_on_when_one_of_each_is_killed(deployment: Deployment) -> None:
    both = ("orchestrator-service", "inventory-service")
    deployment.up("--no-recreate", *(part for name in both for part in ("--scale", f"{name}=2")))
    for orchestrator in deployment.containers("orchestrator-service"):
        container_engine.run_docker("restart", orchestrator["Id"])  # so that each meets both inventories
    assert wait_for(deployment.healthy, SECONDS)
    holder, inventories = Api(deployment.gateway).login("user1@example.com"), deployment.containers("inventory-service")
    assert wait_for(lambda: holds(holder) and all(map(held, inventories)), 60), "both inventories are asked"
    for service in both:
        container_engine.run_docker(
            "kill", deployment.containers(service)[0]["Id"]
        )  # which compose takes for meant: it stays away
    assert wait_for(lambda: deployment.buys(SEAT.format(31)), 60)
    before = held(inventories[1])
    assert wait_for(lambda: holds(holder) and held(inventories[1]) > before, 60)


def test_a_suite_runs_in_its_own_image(deployment: Deployment) -> None:
    deployment.compose("build", "tests")
    said = deployment.compose("run", "--rm", "-T", "tests", "pytest", "-q", "tests/unit/order/test_sweeper.py")
    assert re.search(r"\d+ passed", said), said
