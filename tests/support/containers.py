"""What a suite needs of its own, by testcontainers: where the system runs in containers, its infrastructure does too.

Their reaper is an image that may not be to be had: containers carry their session's mark, and the next session ends
those whose session was killed.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"  # read when the package is imported

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # the package still uses what it deprecates
    from testcontainers.community.postgres import PostgresContainer
    from testcontainers.community.rabbitmq import RabbitMqContainer
    from testcontainers.core.container import DockerContainer

from harness.runtime import container_engine
from harness.runtime.compose import ROOT
from harness.runtime.ports import HOST
from harness.runtime.process import Identity

OWNER = "ticketremaster.owner"  # the label: pid and start time of the session


def postgres(image: str, home: Path, user: str, flags: tuple[str, ...]) -> PostgresContainer:
    """A server whose socket is in `home`, started and taking connections."""
    server = PostgresContainer(image, username=user, password="unused", dbname=user)  # the socket asks for none
    server.with_volume_mapping(str(home), "/var/run/postgresql", "rw").with_command(["postgres", *flags])
    return server.with_kwargs(labels=_mine()).start()


def rabbitmq(image: str, port: int, user: str, password: str) -> RabbitMqContainer:
    """A broker with our topology on `port` of the loopback, started; whoever asked for it waits until it is ready."""
    end_leftovers()
    sources = ROOT / "services" / "rabbitmq"
    broker = RabbitMqContainer(image, username=user, password=password)
    broker.ports = {"5672/tcp": (HOST, port)}
    broker.env = {"RABBITMQ_USER": user, "RABBITMQ_PASS": password}  # what start.sh reads; it imports the user itself
    broker.with_volume_mapping(str(sources), "/etc/rabbitmq/ticketremaster", "ro")
    broker.with_volume_mapping(str(sources / "rabbitmq.conf"), "/etc/rabbitmq/rabbitmq.conf", "ro")
    broker.with_command(["sh", "/etc/rabbitmq/ticketremaster/start.sh"])
    broker.with_kwargs(labels=_mine(), hostname="rabbitmq")
    DockerContainer.start(broker)  # its own wait looks for the port where only a container would find it
    return broker


def end_leftovers() -> None:
    """Remove the containers of sessions that were killed."""
    listed = container_engine.run_docker(
        "ps", "-a", "--filter", f"label={OWNER}", "--format", f'{{{{.ID}}}} {{{{.Label "{OWNER}"}}}}'
    )
    for container, pid, started in (line.split() for line in listed.splitlines()):
        if not Identity(int(pid), float(started)).is_alive():
            container_engine.run_docker("rm", "--force", "--volumes", container)


def _mine() -> dict[str, str]:
    me = Identity.of(os.getpid())
    return {OWNER: f"{me.pid} {me.started}"}
