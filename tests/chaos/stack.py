"""The system of a run: two orchestrators, links that can be cut, and a supervisor that restarts what died."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from harness import Stack, runtime
from harness.runtime import process
from harness.runtime.cleanup import take_down
from harness.runtime.ports import HOST
from harness.runtime.program import is_healthy
from harness.runtime.rabbitmq import RabbitMQ
from harness.runtime.run_directory import RunDir
from tests.support import network_cables, queue_admin, small_disk
from tests.support.network_cables import Cable
from tests.support.running_stack import UNLIMITED, SeatPool
from tests.support.silent_proxy import SilentProxy
from tests.support.system import TestSystem

ORCHESTRATOR, GATEWAY = "orchestrator-service", "api-gateway"
ORCHESTRATORS = (ORCHESTRATOR, f"{ORCHESTRATOR}-2")
SERVICES = (*ORCHESTRATORS, "inventory-service", "user-service", "order-service", "event-service")
PROCESSES = (*SERVICES, GATEWAY, "postgres", "rabbitmq")
FAKES = ("fake-smu", "fake-stripe")
DISKS = {"postgres": 2048, "rabbitmq": 512}  # the sizes in MiB of the disks that an act can fill
WAITING = (queue_admin.HOLD, queue_admin.DELAY, queue_admin.RELEASE)
PARTICIPANTS = {  # of the sagas, with the journal and the broker
    "order-service": 5001,
    "user-service": 5000,
    "inventory-service": 50051,
    "sagas-db": 5432,
    "rabbitmq": 5672,
}
DATABASES = {
    "inventory-service": "seats-db",
    "user-service": "users-db",
    "order-service": "orders-db",
    "event-service": "events-db",
}
CONSUMER = "inventory-service to rabbitmq"
LINKS: Mapping[str, tuple[str, int]] = {  # the program at the end of each, and its port in compose.yaml
    **{f"gateway to {name}": (name, 5003) for name in ORCHESTRATORS},
    **{f"{name} to {part}": (part, port) for name in ORCHESTRATORS for part, port in PARTICIPANTS.items()},
    **{f"{name} to {database}": (database, 5432) for name, database in DATABASES.items()},
    CONSUMER: ("rabbitmq", 5672),
}
CUTS: Mapping[str, tuple[str, ...]] = {  # a link, or those of both orchestrators to a part
    **{link: (link,) for link in LINKS},
    **{f"orchestrators to {part}": tuple(f"{name} to {part}" for name in ORCHESTRATORS) for part in PARTICIPANTS},
}
HOLD_SECONDS = 20
SUPERVISE_SECONDS = 0.1
HEALTHY_SECONDS = 60.0
VARIABLES = {
    **UNLIMITED,
    "HOLD_TTL_SECONDS": str(HOLD_SECONDS),
    "REHOLD_WAIT_SECONDS": "0",
    "MAX_HOLDS_PER_USER": "0",
    "MAX_TICKETS_PER_USER": "0",
}


@dataclass
class ChaosStack:
    """The running system with its links."""

    stack: Stack
    system: TestSystem
    links: dict[str, SilentProxy]
    cables: dict[str, Cable]  # of each link, or of each node of a cluster. Empty if this machine cannot lay any
    disks: dict[str, Path] = field(default_factory=dict)  # of processes whose data has a small disk
    services: Sequence[str] = SERVICES
    processes: Sequence[str] = PROCESSES
    clients: int = 8
    pause_seconds: float = 0.05  # between two visits of a client
    _is_over: threading.Event = field(default_factory=threading.Event)

    def identity(self, name: str) -> process.Identity:
        """The process that was started last under a name."""
        return self.stack.run_dir.read_record(name).identity

    def broker(self, name: str) -> RabbitMQ:
        """A node of RabbitMQ."""
        return cast(RabbitMQ, self.stack.program(name))

    def is_healthy(self) -> bool:
        """Whether every process runs, every service can reach its database, and RabbitMQ accepts messages."""
        names = (*self.processes, *FAKES)
        if any(self.stack.state(name) != "running" for name in names):
            return False
        ready = all(is_healthy(self.stack.program(name).probe[0], "/health") for name in self.services)
        if not (ready and all(self.stack.program(name).is_ready() for name in names if name not in self.services)):
            return False
        return queue_admin.accepts_messages(self.stack)

    def queued_messages(self) -> set[str]:
        """The ids of the messages that wait for the end of a hold or for a consumer."""
        return set[str]().union(*(queue_admin.message_ids(self.stack, name) for name in WAITING))

    def parked_messages(self) -> int:
        """The number of messages that no consumer could handle."""
        return queue_admin.depth(self.stack, queue_admin.PARKING)

    @contextmanager
    def supervised(self) -> Iterator[None]:
        """Restart each process that dies during the block, as `restart: unless-stopped` of compose.yaml does."""
        self._is_over.clear()  # one stack can have several soaks
        thread = threading.Thread(target=self._supervise, name="supervisor")
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _supervise(self) -> None:
        while not self._is_over.wait(SUPERVISE_SECONDS):
            self.stack.restart_dead()


@contextmanager
def running_stack(run_dir: Path, patch: str = "") -> Iterator[ChaosStack]:
    """Start the system with its proxies. `patch` is code that both orchestrators execute before they start."""
    directory = RunDir(run_dir)
    with ExitStack() as opened:
        cables = {link: opened.enter_context(Cable()) for link in LINKS if not network_cables.find_obstacle()}
        links = {
            link: opened.enter_context(
                SilentProxy(_connect_to(directory, link), cables[link].listen() if cables else None)
            )
            for link in LINKS
        }
        targets = ",".join(links[f"gateway to {name}"].address for name in ORCHESTRATORS)
        gateway = {"ORCHESTRATOR_URL": f"http://{targets}"}
        fakes = {name: {"STATE_FILE": str(directory.path / f"{name}.state")} for name in FAKES}
        others = {name: _point_database_to(links[f"{name} to {database}"]) for name, database in DATABASES.items()}
        others["inventory-service"] |= _point_broker_to(links[CONSUMER])
        first, second = ({part: links[f"{name} to {part}"] for part in PARTICIPANTS} for name in ORCHESTRATORS)
        overrides = {ORCHESTRATOR: _point_orchestrator_to(first), GATEWAY: gateway, **others, **fakes}
        disks = {} if small_disk.find_obstacle() else {name: run_dir / name for name in DISKS}
        for name, path in disks.items():
            opened.enter_context(small_disk.small_disk(path, DISKS[name]))
        stack = opened.enter_context(runtime.up(run_dir, env=VARIABLES, quiet=True, overrides=overrides))
        opened.callback(take_down, directory)  # no test needs the data, and a clean stop takes seconds
        stack.start_replica(ORCHESTRATOR, _point_orchestrator_to(second))
        for name in ORCHESTRATORS if patch else ():
            script = f"{patch}\nfrom services.orchestrator.main import main\nmain()"
            stack.programs[name] = replace(stack.program(name), argv=(sys.executable, "-c", script))
            stack.restart(name)
        yield ChaosStack(stack, TestSystem(stack, SeatPool()), links, cables, disks)


def _point_orchestrator_to(links: Mapping[str, SilentProxy]) -> dict[str, str]:
    return {
        "ORDER_SERVICE_URL": f"http://{links['order-service'].address}",
        "USER_SERVICE_URL": f"http://{links['user-service'].address}",
        "INVENTORY_SERVICE_URL": links["inventory-service"].address,
        **_point_database_to(links["sagas-db"]),
        **_point_broker_to(links["rabbitmq"]),
    }


def _point_database_to(link: SilentProxy) -> dict[str, str]:
    return {"DB_HOST": link.host, "DB_PORT": str(link.port)}


def _point_broker_to(link: SilentProxy) -> dict[str, str]:
    return {"RABBITMQ_HOST": link.host, "RABBITMQ_PORT": str(link.port)}


def _connect_to(directory: RunDir, link: str) -> Callable[[], socket.socket]:
    """Return a function that connects to the end of a link."""
    return lambda: socket.create_connection((HOST, find_port(directory, *LINKS[link])))


def find_port(directory: RunDir, name: str, port: int) -> int:
    """Return the port of this machine. The proxies need it while the stack starts."""
    replica = directory.read_record(name).ports
    description = directory.read_stack() or {"ports": {}}
    return int((replica or description["ports"].get(name, {})).get(str(port), 1))  # port 1 accepts nothing
