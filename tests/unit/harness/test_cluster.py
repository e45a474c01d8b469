"""The cluster is derived from compose.yaml, and its settings are those of the manifests."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import StackError
from harness.runtime import cluster, compose, etcd, patroni, ports, process, variables
from harness.runtime.cluster import GROUPS, ClusterStack, expand
from harness.runtime.compose import ROOT
from harness.runtime.patroni import Patroni
from harness.runtime.postgres import Postgres
from harness.runtime.process_plan import add_needs
from harness.runtime.rabbitmq_cluster import ADVANCED, ClusterNode
from harness.runtime.run_directory import RunDir
from harness.runtime.stack import COMPOSE
from services.gateway import render
from tests.support.http_servers import AnsweringServer, Request

pytestmark = pytest.mark.unit

VALUES = variables.resolve({}, {}, compose.variables_of(COMPOSE))
MANIFESTS = ROOT / "deploy" / "k8s"
SERVICES = ("inventory", "user", "order", "event", "orchestrator")


@pytest.fixture
def stack(tmp_path: Path) -> ClusterStack:
    """A cluster that was never started."""
    directory = RunDir(tmp_path)
    directory.create()
    assigned = ClusterStack.assign_ports(ClusterStack.load_services(VALUES), directory)
    ports.release([here for own in assigned.values() for here in own.values()])
    return ClusterStack(directory, assigned, VALUES, quiet=True)


def test_cluster_has_three_nodes_of_each_and_two_of_each_service(stack: ClusterStack) -> None:
    nodes = {name for group in GROUPS.values() for name in group}
    assert len(nodes) == 9
    services = {f"{name}-service{number}" for name in SERVICES for number in ("", "-2")}
    single = {"epmd", "fake-smu", "fake-stripe", "api-gateway", "web-client"}
    assert set(stack.names) == nodes | services | single


def test_each_service_gets_the_addresses_of_all_nodes(stack: ClusterStack) -> None:
    def list_ports(names: tuple[str, ...], port: int) -> list[str]:
        return [str(stack.ports_of(name)[port]) for name in names]

    for name in ("inventory-service", "inventory-service-2"):
        env = stack.env(name)
        assert env["DB_HOST"] == env["RABBITMQ_HOST"] == "127.0.0.1,127.0.0.1,127.0.0.1"
        assert env["DB_PORT"].split(",") == list_ports(GROUPS["postgres"], 5432)
        assert env["RABBITMQ_PORT"].split(",") == list_ports(GROUPS["rabbitmq"], 5672)
        assert env["PORT"] == str(stack.ports_of(name)[8080])


def test_services_gateway_and_stripe_get_both_processes(stack: ClusterStack) -> None:
    def both(name: str, port: int) -> list[str]:
        return [stack.address(name, port), stack.address(f"{name}-2", port)]

    orchestrator = stack.env("orchestrator-service")
    assert orchestrator["INVENTORY_SERVICE_URL"] == ",".join(both("inventory-service", 50051))
    assert orchestrator["USER_SERVICE_URL"] == "http://" + ",".join(both("user-service", 5000))
    targets = render.values(stack.env("api-gateway"))["UPSTREAMS"][2]["targets"]  # type: ignore[index]
    assert [entry["target"] for entry in targets] == both("orchestrator-service", 5003)
    webhook = f"http://{stack.address('api-gateway', 8000)}/api/webhooks/stripe"
    assert stack.env("fake-stripe")["STRIPE_WEBHOOK_URL"] == webhook


def test_a_service_starts_after_all_nodes_and_both_neighbours(stack: ClusterStack) -> None:
    assert add_needs(stack.programs, stack.members("order-service")) == [
        *GROUPS["etcd"],
        *GROUPS["postgres"],
        "order-service",
        "order-service-2",
    ]
    needs = stack.program("orchestrator-service-2").needs
    assert {*GROUPS["postgres"], *GROUPS["rabbitmq"], "user-service", "user-service-2"} <= set(needs)


def test_dsn_names_all_nodes_and_selects_the_one_that_leads(stack: ClusterStack) -> None:
    hosts = ",".join(stack.address(name, 5432) for name in GROUPS["postgres"])
    for dsn in (stack.dsn("order-service"), stack.admin_dsn("orders_db")):
        assert dsn.partition("@")[2] == f"{hosts}/orders_db?target_session_attrs=read-write"
    assert stack.url("patroni-2").partition("@")[2] == f"{stack.address('patroni-2', 5432)}/postgres"


def test_next_replica_has_the_next_number(stack: ClusterStack) -> None:
    assert stack.peers("user-service", 5000).split(",") == [
        stack.address("user-service", 5000),
        stack.address("user-service-2", 5000),
    ]
    assert stack.replicas("user-service") == ["user-service-2"]


def test_next_start_keeps_the_ports_of_etcd(stack: ClusterStack) -> None:
    """The addresses of its peers are part of the data of etcd."""
    again = ClusterStack.assign_ports(ClusterStack.load_services(VALUES), stack.run_dir)
    assert {name: again[name] for name in GROUPS["etcd"]} == {name: stack.ports_of(name) for name in GROUPS["etcd"]}
    with pytest.raises(StackError, match="the data of etcd requires its ports"):
        ClusterStack.assign_ports(ClusterStack.load_services(VALUES), stack.run_dir)
    ports.release([here for own in again.values() for here in own.values()])


def read_spec(file: str, kind: str) -> Any:
    """Return the `spec` of the object of this kind in a manifest."""
    documents = yaml.safe_load_all((MANIFESTS / file).read_text())
    return next(each["spec"] for each in documents if each["kind"] == kind)


def test_first_node_starts_from_a_restored_backup(stack: ClusterStack) -> None:
    """tests/e2e/test_point_in_time.py restores a cluster."""
    assert "method" not in read_bootstrap(stack)
    restored = add_backup(stack)
    bootstrap = read_bootstrap(ClusterStack(stack.run_dir, stack._ports, VALUES, quiet=True))
    command = f"cp -aT {restored} {stack.run_dir.path}/postgres/patroni-2/data"
    kept = {"command": command, "no_params": True, "keep_existing_recovery_conf": True}
    assert bootstrap[bootstrap["method"]] == kept


def test_interrupted_start_from_a_backup_begins_again(stack: ClusterStack) -> None:
    """Patroni would take the copied data for its own, and stop at the base backup."""
    servers = stack.run_dir.path / "postgres"
    left = [servers / "patroni-2" / "data", stack.run_dir.path / "etcd" / "etcd-1"]
    for folder in (*left, servers / "data"):
        folder.mkdir(parents=True)
    stack._prepare_start([], build=True)
    assert all(folder.exists() for folder in left), "without a backup, these are the data of the cluster"
    (servers / "data" / "recovery.signal").touch()
    stack._prepare_start([])
    assert all(folder.exists() for folder in left), "only `up` begins again"
    stack._prepare_start([], build=True)
    assert not any(folder.exists() for folder in left)


def test_next_start_after_an_interrupted_restore_may_have_other_ports(stack: ClusterStack) -> None:
    stack.run_dir.write_file("etcd/ports.json", json.dumps({name: {"2379": 1, "2380": 2} for name in GROUPS["etcd"]}))
    add_backup(stack)
    again = ClusterStack.assign_ports(ClusterStack.load_services(VALUES), stack.run_dir)
    ports.release([here for own in again.values() for here in own.values()])


@pytest.mark.parametrize(
    "state", [{}, {"role": "replica"}, {"role": "primary"}], ids=["unreadable", "follower", "leader"]
)
def test_backup_is_deleted_once_a_leader_has_started_from_it(
    stack: ClusterStack, monkeypatch: pytest.MonkeyPatch, state: dict[str, str]
) -> None:
    """Otherwise the next `up --ha` would delete the cluster and return to the moment of the backup."""
    restored = add_backup(stack)
    node = stack.program("patroni-2")
    assert isinstance(node, Patroni)
    monkeypatch.setattr(node, "read", lambda path: state)
    monkeypatch.setattr(Postgres, "after_ready", lambda self: None)
    node.after_ready()
    assert not restored.exists()


def test_each_node_archives_while_it_leads(stack: ClusterStack, tmp_path: Path) -> None:
    archiving = ClusterStack(stack.run_dir, stack._ports, {**VALUES, "WAL_ARCHIVE": str(tmp_path / "wal")}, quiet=True)
    for name in GROUPS["postgres"]:
        node = archiving.program(name)
        assert isinstance(node, Patroni)
        parameters = (node.description or {})["postgresql"]["parameters"]
        assert (node.archive, parameters["archive_mode"]) == (tmp_path / "wal", "on")
        assert f"{tmp_path}/wal/%f" in parameters["archive_command"]


def add_backup(stack: ClusterStack) -> Path:
    """Let the next start of the cluster begin from restored data, and return their folder."""
    restored = stack.run_dir.path / "postgres" / "data"
    restored.mkdir(parents=True)
    (restored / "recovery.signal").touch()
    return restored


def read_bootstrap(stack: ClusterStack) -> Any:
    """Return the settings with which the second node of PostgreSQL creates its data."""
    node = stack.program("patroni-2")
    assert isinstance(node, Patroni)
    return (node.description or {})["bootstrap"]


def test_replication_is_that_of_the_manifests() -> None:
    """One of both followers has each acknowledged commit, and without any, commits wait."""
    spec = read_spec("user.yaml", "Cluster")
    assert spec["instances"] == len(GROUPS["postgres"])
    assert spec["postgresql"]["synchronous"] == {"method": "any", "number": 1, "dataDurability": "required"}
    assert patroni.DYNAMIC["synchronous_mode"] == "quorum"
    assert patroni.DYNAMIC["synchronous_mode_strict"]
    assert patroni.CLUSTER_SETTINGS["max_connections"] == spec["postgresql"]["parameters"]["max_connections"]


def test_leader_waits_longer_than_two_elections_of_etcd() -> None:
    """etcd multiplies its timeout by a random factor below 2. Split votes need a second election."""
    longest = 2 * 2 * etcd.ELECTION / 1000
    assert longest < 2 / 3 * patroni.DYNAMIC["retry_timeout"]
    assert patroni.DYNAMIC["loop_wait"] + 2 * patroni.DYNAMIC["retry_timeout"] <= patroni.DYNAMIC["ttl"]


def test_broker_handles_partitions_as_in_the_manifests(stack: ClusterStack) -> None:
    spec = read_spec("rabbitmq.yaml", "RabbitmqCluster")
    assert spec["replicas"] == len(GROUPS["rabbitmq"])
    node = stack.program("rabbitmq-2")
    assert isinstance(node, ClusterNode)
    settings = node._settings()
    assert spec["rabbitmq"]["advancedConfig"] == ADVANCED
    assert (
        f"cluster_partition_handling = {settings['cluster_partition_handling']}" in spec["rabbitmq"]["additionalConfig"]
    )
    assert [name for key, name in settings.items() if "nodes" in key] == [
        f"{name}@localhost" for name in GROUPS["rabbitmq"]
    ]


def test_log_of_the_queues_needs_a_small_part_of_the_memory(stack: ClusterStack) -> None:
    """RabbitMQ keeps that log in memory too. At the limit of the memory, it blocks publishers and no sale begins."""
    node = stack.program("rabbitmq-2")
    assert isinstance(node, ClusterNode)
    settings = dict(re.findall(r"(?m)^([\w.]+) = (\d+)", node._configuration(Path("unused"))))
    log = int(settings["raft.wal_max_size_bytes"])
    assert 4 * log <= 1_000_000 * int(settings["vm_memory_high_watermark.absolute"])
    spec = read_spec("rabbitmq.yaml", "RabbitmqCluster")
    assert f"\nraft.wal_max_size_bytes = {log}\n" in spec["rabbitmq"]["additionalConfig"]


def test_configuration_of_patroni_is_private_and_names_all_of_etcd(stack: ClusterStack) -> None:
    node = stack.program("patroni-3")
    assert isinstance(node, patroni.Patroni)
    node.prepare({})
    assert node.config.stat().st_mode & 0o077 == 0
    written = json.loads(node.config.read_text())
    assert written["etcd3"]["hosts"] == [stack.address(name, 2379) for name in GROUPS["etcd"]]
    assert written["postgresql"]["connect_address"] == stack.address("patroni-3", 5432)
    assert written["postgresql"]["remove_data_directory_on_rewind_failure"], "else a broken follower never returns"


@pytest.mark.parametrize(
    ("has_etcd", "has_patroni", "problem"),
    [
        (True, True, None),
        (False, True, "etcd is not installed, and this user cannot install it. Type: sudo apt-get install etcd-server"),
        (True, False, "Patroni is not installed: run `make setup`"),
    ],
)
def test_one_line_says_why_a_machine_runs_no_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_etcd: bool, has_patroni: bool, problem: str | None
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/etcd" if has_etcd and name == "etcd" else None)
    monkeypatch.setattr(patroni, "find_spec", lambda name: object() if has_patroni else None)
    assert cluster.find_problem() == problem
    if problem:
        with pytest.raises(StackError, match=problem.partition(":")[0]):
            ClusterStack.install_missing({}, None)


def test_server_of_a_node_is_found_by_its_data_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Server:
        def __init__(self, place: Path) -> None:
            self.place = place

        def environ(self) -> dict[str, str]:
            return {}

        def name(self) -> str:
            return "postgres"

        def cwd(self) -> str:
            return str(self.place)

    for place, belongs in (
        (tmp_path / "postgres" / "data", True),
        (tmp_path / "postgres" / "patroni-1" / "data", True),
        (tmp_path / "precious" / "data", False),
        (tmp_path / "postgres" / "other", False),
    ):
        assert process._belongs(Server(place), tmp_path) is belongs  # type: ignore[arg-type]


def test_expansion_leaves_the_single_processes_alone() -> None:
    services = compose.load(COMPOSE, VALUES)
    expanded = expand(services)
    assert expanded["web-client"] == services["web-client"]
    assert expanded["fake-smu"] == services["fake-smu"]


@pytest.mark.parametrize(("status", "is_ready"), [(200, True), (503, False)])
def test_frozen_leader_is_ready_only_with_its_lease(status: int, is_ready: bool) -> None:
    """It takes itself for the leader until it has read who has the lease."""

    def answer(request: Request) -> tuple[int, bytes]:
        return (200, b'{"state": "running", "role": "primary"}') if request.path == "/patroni" else (status, b"{}")

    with AnsweringServer(answer) as server:
        node_ports = {patroni.SQL: 1, patroni.REST: server.port}
        node = patroni.Patroni(name="postgres-1", argv=(), env={}, ports=node_ports, probe=(server.port, "/health"))
        assert node.is_ready() is is_ready
