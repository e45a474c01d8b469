"""The system of a run: two orchestrators, a proxy on each link, and a supervisor that restarts what died."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import Stack, runtime
from harness.runtime import packages, process
from harness.runtime.cleanup import take_down
from harness.runtime.ports import HOST
from harness.runtime.program import is_healthy
from harness.runtime.run_directory import RunDir
from tests.support import queue_admin, small_disk
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
LINKS: Mapping[str, tuple[str, int]] = {  # the program at the end of each, and its port in compose.yaml
    **{f"gateway to {name}": (name, 5003) for name in ORCHESTRATORS},
    "orchestrators to order": ("order-service", 5001),
    "orchestrators to user": ("user-service", 5000),
    "orchestrators to inventory": ("inventory-service", 50051),
    "orchestrators to sagas_db": ("sagas-db", 5432),
    "orchestrators to rabbitmq": ("rabbitmq", 5672),
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
    disks: dict[str, Path] = field(default_factory=dict)  # of processes whose data has a small disk
    services: Sequence[str] = SERVICES
    processes: Sequence[str] = PROCESSES
    clients: int = 8
    pause_seconds: float = 0.05  # between two visits of a client
    _is_over: threading.Event = field(default_factory=threading.Event)

    def identity(self, name: str) -> process.Identity:
        """The process that was started last under a name."""
        return self.stack.run_dir.read_record(name).identity

    def is_healthy(self) -> bool:
        """Whether every process runs, every service can reach its database, and RabbitMQ accepts messages."""
        names = (*self.processes, *FAKES)
        if any(self.stack.state(name) != "running" for name in names):
            return False
        ready = all(is_healthy(self.stack.program(name).probe[0], "/health") for name in self.services)
        if not (ready and all(self.stack.program(name).is_ready() for name in names if name not in self.services)):
            return False
        return queue_admin.accepts_messages(self.stack)

    def run_rabbitmqctl(self, *arguments: str) -> None:
        """Run a command of RabbitMQ's administrator."""
        tool = packages.ensure_broker().with_name("rabbitmqctl")
        environment = {"PATH": os.environ["PATH"], **self.stack.env("rabbitmq")}
        subprocess.run([tool, *arguments], env=environment, check=True, capture_output=True)

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
        links = {link: opened.enter_context(SilentProxy(_connect_to(directory, link))) for link in LINKS}
        local = {link: f"127.0.0.1:{proxy.port}" for link, proxy in links.items()}
        orchestrator = {
            "ORDER_SERVICE_URL": f"http://{local['orchestrators to order']}",
            "USER_SERVICE_URL": f"http://{local['orchestrators to user']}",
            "INVENTORY_SERVICE_URL": local["orchestrators to inventory"],
            "DB_PORT": str(links["orchestrators to sagas_db"].port),
            "RABBITMQ_PORT": str(links["orchestrators to rabbitmq"].port),
        }
        gateway = {"ORCHESTRATOR_URL": "http://" + ",".join(local[f"gateway to {name}"] for name in ORCHESTRATORS)}
        fakes = {name: {"STATE_FILE": str(directory.path / f"{name}.state")} for name in FAKES}
        overrides = {ORCHESTRATOR: orchestrator, GATEWAY: gateway, **fakes}
        disks = {} if small_disk.find_obstacle() else {name: run_dir / name for name in DISKS}
        for name, path in disks.items():
            opened.enter_context(small_disk.small_disk(path, DISKS[name]))
        stack = opened.enter_context(runtime.up(run_dir, env=VARIABLES, quiet=True, overrides=overrides))
        opened.callback(take_down, directory)  # no test needs the data, and a clean stop takes seconds
        stack.start_replica(ORCHESTRATOR, orchestrator)
        for name in ORCHESTRATORS if patch else ():
            script = f"{patch}\nfrom services.orchestrator.main import main\nmain()"
            stack.programs[name] = replace(stack.program(name), argv=(sys.executable, "-c", script))
            stack.restart(name)
        yield ChaosStack(stack, TestSystem(stack, SeatPool()), links, disks)


def _connect_to(directory: RunDir, link: str) -> Callable[[], socket.socket]:
    """Return a function that connects to the end of a link."""
    return lambda: socket.create_connection((HOST, find_port(directory, *LINKS[link])))


def find_port(directory: RunDir, name: str, port: int) -> int:
    """Return the port of this machine. The proxies need it while the stack starts."""
    replica = directory.read_record(name).ports
    description = directory.read_stack() or {"ports": {}}
    return int((replica or description["ports"].get(name, {})).get(str(port), 1))  # port 1 accepts nothing
