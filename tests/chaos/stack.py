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
URL = "http://{host}:{port}"


@dataclass(frozen=True)
class End:
    """The end of a link: a program, its port in compose.yaml, and the variables that have its address."""

    program: str
    port: int
    variables: Mapping[str, str]


DATABASES = ("seats-db", "users-db", "orders-db", "events-db", "sagas-db")
ENDS = {
    **{name: End(name, 5003, {}) for name in ORCHESTRATORS},  # one variable of the gateway has both
    "order-service": End("order-service", 5001, {"ORDER_SERVICE_URL": URL}),
    "user-service": End("user-service", 5000, {"USER_SERVICE_URL": URL}),
    "event-service": End("event-service", 5002, {"EVENT_SERVICE_URL": URL}),
    "inventory-service": End("inventory-service", 50051, {"INVENTORY_SERVICE_URL": "{host}:{port}"}),
    "the seat map": End("inventory-service", 8080, {"INVENTORY_HTTP_URL": URL}),
    "fake-smu": End("fake-smu", 6001, {"SMU_API_URL": URL}),
    "fake-stripe": End("fake-stripe", 6002, {"STRIPE_API_BASE": URL}),
    "the webhook": End("user-service", 5000, {"STRIPE_WEBHOOK_URL": f"{URL}/api/webhooks/stripe"}),
    "rabbitmq": End("rabbitmq", 5672, {"RABBITMQ_HOST": "{host}", "RABBITMQ_PORT": "{port}"}),
    **{name: End(name, 5432, {"DB_HOST": "{host}", "DB_PORT": "{port}"}) for name in DATABASES},
}
PARTICIPANTS = ("order-service", "user-service", "event-service", "inventory-service", "sagas-db", "rabbitmq")
CONNECTIONS = {
    GATEWAY: (*ORCHESTRATORS, "user-service", "event-service"),
    **dict.fromkeys(ORCHESTRATORS, PARTICIPANTS),
    "inventory-service": ("seats-db", "rabbitmq", "order-service", "user-service"),
    "user-service": ("users-db", "fake-smu", "fake-stripe"),
    "order-service": ("orders-db", "user-service"),
    "event-service": ("events-db", "the seat map", "user-service"),
    "fake-stripe": ("the webhook",),
}
LINKS = {f"{name} to {end}": ENDS[end] for name, ends in CONNECTIONS.items() for end in ends}
CUTS: Mapping[str, tuple[str, ...]] = {  # a link, or those of both orchestrators to a participant
    **{link: (link,) for link in LINKS},
    **{f"orchestrators to {end}": tuple(f"{name} to {end}" for name in ORCHESTRATORS) for end in PARTICIPANTS},
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
        overrides = {name: _find_variables(name, links) for name in CONNECTIONS}
        second = overrides.pop(ORCHESTRATORS[1])
        for name in FAKES:
            overrides.setdefault(name, {})["STATE_FILE"] = str(directory.path / f"{name}.state")
        disks = {} if small_disk.find_obstacle() else {name: run_dir / name for name in DISKS}
        for name, path in disks.items():
            opened.enter_context(small_disk.small_disk(path, DISKS[name]))
        stack = opened.enter_context(runtime.up(run_dir, env=VARIABLES, quiet=True, overrides=overrides))
        opened.callback(take_down, directory)  # no test needs the data, and a clean stop takes seconds
        stack.start_replica(ORCHESTRATOR, second)
        for name in ORCHESTRATORS if patch else ():
            script = f"{patch}\nfrom services.orchestrator.main import main\nmain()"
            stack.programs[name] = replace(stack.program(name), argv=(sys.executable, "-c", script))
            stack.restart(name)
        yield ChaosStack(stack, TestSystem(stack, SeatPool()), links, cables, disks)


def _find_variables(name: str, links: Mapping[str, SilentProxy]) -> dict[str, str]:
    """Return the variables with which a program uses its links."""
    found: dict[str, str] = {}
    for end in CONNECTIONS[name]:
        link = links[f"{name} to {end}"]
        found |= {each: text.format(host=link.host, port=link.port) for each, text in ENDS[end].variables.items()}
    if name == GATEWAY:
        found["ORCHESTRATOR_URL"] = "http://" + ",".join(links[f"{name} to {each}"].address for each in ORCHESTRATORS)
    return found


def _connect_to(directory: RunDir, link: str) -> Callable[[], socket.socket]:
    """Return a function that connects to the end of a link."""
    end = LINKS[link]
    return lambda: socket.create_connection((HOST, find_port(directory, end.program, end.port)))


def find_port(directory: RunDir, name: str, port: int) -> int:
    """Return the port of this machine. The proxies need it while the stack starts."""
    replica = directory.read_record(name).ports
    description = directory.read_stack() or {"ports": {}}
    return int((replica or description["ports"].get(name, {})).get(str(port), 1))  # port 1 accepts nothing
