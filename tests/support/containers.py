"""PostgreSQL and RabbitMQ by testcontainers, for sessions in which the system runs in containers.

Ryuk, the cleaner of testcontainers, is off, because its image may be unavailable offline. Each container is labelled
with its session instead, so that the next session can remove the containers of a session that was killed.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"  # read when the package is imported

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # the package uses names that it has deprecated
    from testcontainers.community.postgres import PostgresContainer
    from testcontainers.community.rabbitmq import RabbitMqContainer
    from testcontainers.core.container import DockerContainer

from harness.runtime import container_engine
from harness.runtime.compose import ROOT
from harness.runtime.ports import HOST
from harness.runtime.process import Identity

OWNER = "ticketremaster.owner"  # a label with the pid and start time of the session


def postgres(image: str, home: Path, user: str, flags: tuple[str, ...]) -> PostgresContainer:
    """Start a server with its socket in `home`. It accepts connections on return."""
    server = PostgresContainer(
        image, username=user, password="unused", dbname=user
    )  # connections over the socket need none
    server.with_volume_mapping(str(home), "/var/run/postgresql", "rw").with_command(["postgres", *flags])
    return server.with_kwargs(labels=_labels()).start()


def rabbitmq(image: str, port: int, user: str, password: str) -> RabbitMqContainer:
    """Start a broker with our topology on `port` of the loopback interface. The caller waits until it is ready."""
    end_leftovers()
    sources = ROOT / "services" / "rabbitmq"
    broker = RabbitMqContainer(image, username=user, password=password)
    broker.ports = {"5672/tcp": (HOST, port)}
    broker.env = {"RABBITMQ_USER": user, "RABBITMQ_PASS": password}  # for start.sh, which creates the user
    broker.with_volume_mapping(str(sources), "/etc/rabbitmq/ticketremaster", "ro")
    broker.with_volume_mapping(str(sources / "rabbitmq.conf"), "/etc/rabbitmq/rabbitmq.conf", "ro")
    broker.with_command(["sh", "/etc/rabbitmq/ticketremaster/start.sh"])
    broker.with_kwargs(labels=_labels(), hostname="rabbitmq")
    DockerContainer.start(broker)  # RabbitMqContainer.start waits for a port that only other containers reach
    return broker


def end_leftovers() -> None:
    """Remove the containers of sessions that were killed."""
    listed = container_engine.run_docker(
        "ps", "-a", "--filter", f"label={OWNER}", "--format", f'{{{{.ID}}}} {{{{.Label "{OWNER}"}}}}'
    )
    for container, pid, started in (line.split() for line in listed.splitlines()):
        if not Identity(int(pid), float(started)).is_alive():
            container_engine.run_docker("rm", "--force", "--volumes", container)


def _labels() -> dict[str, str]:
    me = Identity.of(os.getpid())
    return {OWNER: f"{me.pid} {me.started}"}
