"""The copy of compose.yaml from which Compose creates containers, checked without a container engine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import StackError
from harness.runtime import compose, container_engine, containers, ports, variables
from harness.runtime.containers import ContainerStack
from harness.runtime.process import Identity
from harness.runtime.run_directory import Record, RunDir
from harness.runtime.stack import COMPOSE

pytestmark = pytest.mark.unit

VALUES = variables.resolve({}, {"SMU_API_KEY": "costs $5 and ${more}" * 2}, compose.variables_of(COMPOSE))


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ContainerStack]:
    """A stack that was never started, on a machine without Kong."""
    monkeypatch.setattr(container_engine, "has_image", lambda _name: False)
    directory = RunDir(tmp_path)
    directory.create()
    assigned = ContainerStack.assign_ports(compose.load(COMPOSE, VALUES), directory)
    yield ContainerStack(directory, assigned, VALUES, quiet=True)
    ports.release([here for own in assigned.values() for here in own.values()])


def services(stack: ContainerStack) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = stack._document()["services"]
    return found


def test_every_port_is_published_once_and_on_the_loopback(stack: ContainerStack) -> None:
    published = [port.split(":") for service in services(stack).values() for port in service["ports"]]
    assert {host for host, _, _ in published} == {"127.0.0.1"}
    here = [port for _, port, _ in published]
    assert len(set(here)) == len(here) > 15
    assert stack.address("inventory-service", 50051).endswith(f":{stack.ports_of('inventory-service')[50051]}")


def test_every_container_is_on_the_network_of_the_project(stack: ContainerStack) -> None:
    assert "networks" not in stack._document()
    assert {tuple(service["networks"]) for service in services(stack).values()} == {("default",)}


def test_each_database_has_its_own_server(stack: ContainerStack) -> None:
    dsns = stack.dsns()
    assert len(dsns) == 5
    assert len({dsn.rpartition("@")[2].partition("/")[0] for dsn in dsns.values()}) == 5
    assert stack.dsn("order-service") == dsns["orders_db"]
    server = dsns["orders_db"].rpartition("@")[2]
    assert stack.admin_dsn("orders_db").startswith("postgresql://postgres:")
    assert stack.admin_dsn("orders_db").endswith(f"@{server}")


def test_variables_are_inserted_and_dollar_signs_escaped(stack: ContainerStack) -> None:
    user = services(stack)["user-service"]["environment"]
    assert user["SMU_API_KEY"] == VALUES["SMU_API_KEY"].replace("$", "$$")
    assert user["DB_HOST"] == "users-db", "containers use the names of compose.yaml"
    assert stack.env("user-service")["DB_HOST"] == ports.HOST, "processes of this machine use the published ports"


def test_only_the_harness_starts_and_restarts_containers(stack: ContainerStack) -> None:
    for service in services(stack).values():
        assert service["restart"] == "no"
        assert "depends_on" not in service
    assert "tests" not in services(stack)


@pytest.mark.parametrize(("has_kong", "image"), [(True, "kong:3.9"), (False, "ticketremaster-fake")])
def test_gateway_is_kong_or_the_fake_without_its_image(
    stack: ContainerStack, monkeypatch: pytest.MonkeyPatch, has_kong: bool, image: str
) -> None:
    monkeypatch.setattr(container_engine, "has_image", lambda _name: has_kong)
    gateway = services(stack)["api-gateway"]
    assert gateway["image"] == image
    assert gateway["environment"]["KONG_STATUS_LISTEN"] == "0.0.0.0:8100"
    assert gateway["environment"]["KONG_DECLARATIVE_CONFIG"] == "/rendered/kong.yml"


def test_replica_has_the_network_name_of_its_service(stack: ContainerStack) -> None:
    stack.run_dir.write_record(Record("inventory-service-2", replica_of="inventory-service", ports={"50051": 1}))
    replica, original = (services(stack)[name] for name in ("inventory-service-2", "inventory-service"))
    assert replica["networks"] == {"default": {"aliases": ["inventory-service"]}}
    assert replica["ports"] == ["127.0.0.1:1:50051"]
    assert replica["environment"] == original["environment"]
    assert stack.peers("inventory-service", 50051) == "inventory-service:50051"


def test_override_of_the_gateway_reaches_its_renderer(stack: ContainerStack) -> None:
    stack.run_dir.write_record(Record("api-gateway", overrides={"RATE_LIMIT_PER_MINUTE": "1"}))
    assert services(stack)["gateway-config"]["environment"]["RATE_LIMIT_PER_MINUTE"] == "1"


def test_all_database_servers_are_one_program(stack: ContainerStack) -> None:
    assert stack._containers("postgres") == ("seats-db", "users-db", "orders-db", "events-db", "sagas-db")
    assert stack._containers("user-service") == ("user-service",)
    assert stack.names[0] == "postgres"
    assert not {"gateway-config", "seats-db", "epmd"} & set(stack.names)


def test_failed_start_of_a_container_blames_no_other_program(
    stack: ContainerStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine listens on the ports of each container, also of the broker, whose distribution has none."""
    monkeypatch.setattr(stack, "log_path", lambda _name: COMPOSE)  # any file
    for name in stack.names:
        program = stack.program(name)
        assert set(program.listen_ports) <= set(program.ports.values())
        with socket.create_server((ports.HOST, program.listen_ports[0])), pytest.raises(StackError) as failed:
            stack._wait_until_ready(program, Record(name, state="starting"))
        assert "ended while starting" in str(failed.value)
        assert "another process" not in str(failed.value)


def test_each_directory_has_its_own_project(tmp_path: Path) -> None:
    one, other = container_engine.Project.of(tmp_path / "one"), container_engine.Project.of(tmp_path / "other")
    assert one.name == container_engine.Project.of(tmp_path / "one").name != other.name
    one.remove(volumes=True)  # no-op without an engine call, because the project has no containers


def test_failed_command_is_reported_with_its_output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(container_engine, "find_compose", lambda: ("sh", "-c", "echo no such thing >&2; exit 3"))
    with pytest.raises(StackError, match="no such thing"):
        container_engine.Project.of(tmp_path).run_compose("up")


def test_container_that_ends_at_once_is_not_alive(stack: ContainerStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_engine.Project, "ids", lambda _self, names: list(names))
    monkeypatch.setattr(container_engine, "run_docker", lambda *_arguments: "0")
    launched = stack._launch("user-service")
    assert isinstance(launched, Identity)
    assert not launched.is_alive()


def test_offline_file_changes_only_the_gateway() -> None:
    assert list(containers._read_file(containers.OFFLINE)["services"]) == ["api-gateway"]
