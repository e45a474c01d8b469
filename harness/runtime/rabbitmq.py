"""The machine's real RabbitMQ, run directly: Debian's wrapper insists on its own user and directories."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pika
from pika.exceptions import AMQPError

from harness.runtime import packages
from harness.runtime.compose import ROOT
from harness.runtime.ports import HOST
from harness.runtime.program import Program, make_state_dir

SOURCES = ROOT / "services" / "rabbitmq"
NODE = "ticketremaster@localhost"
AMQP_GREETING = b"AMQP\x00\x00\x09\x01"
# The management plugin would make the node five seconds slower to stop; the container has it.
PLUGINS = "[].\n"
# A demo's node: two schedulers, few I/O threads, no Erlang shell, and distribution on the loopback only.
ERL_FLAGS = "-noinput +S 2:2 +SDio 2 +A 4 -kernel inet_dist_use_interface {127,0,0,1}"


@dataclass
class RabbitMQ(Program):
    """The broker; its user and topology are imported at every boot, before it listens."""

    home: Path = Path()
    user: str = ""
    password: str = ""

    @property
    def url(self) -> str:
        """The AMQP URL, with credentials."""
        return f"amqp://{quote(self.user)}:{quote(self.password, safe='')}@{HOST}:{self.port}/%2F"

    def prepare(self, env: Mapping[str, str]) -> None:
        """Write configuration, plugins, topology and the user into the broker's directory."""
        self.argv = (str(packages.ensure_broker()),)
        imported = make_state_dir(self.home, "definitions.d")
        shutil.copyfile(SOURCES / "definitions.json", imported / "10-topology.json")
        _write_secret(imported / "20-user.json", json.dumps(user_definition(self.user, self.password)))
        (self.home / "enabled_plugins").write_text(PLUGINS)
        (self.home / "rabbitmq.conf").write_text(self._configuration(imported))

    def is_ready(self) -> bool:
        """Whether the broker lets our user in and has the topology."""
        if not _greets(self.port):  # until then a client library would only log its failures
            return False
        try:
            with closing(pika.BlockingConnection(pika.URLParameters(self.url))) as connection:
                connection.channel().queue_declare("seat.release.queue", passive=True)
        except AMQPError:
            return False
        return True

    def is_durable(self) -> bool:
        """Whether the registry of quorum queues is on disk.

        RabbitMQ 3.10 writes it a few seconds late: killed before that on its very first run, a node starts its queues
        afresh, without their messages and without a leader, and every publish is refused.
        """
        topology = json.loads((SOURCES / "definitions.json").read_text())
        written = self.registry()
        return all(f"_{queue['name']}".encode() in written for queue in topology["queues"])

    def registry(self) -> bytes:
        """The registry of quorum queues, as it is on disk; empty while there is none."""
        registry = self.home / "data" / NODE / "quorum" / NODE / "names.dets"
        return registry.read_bytes() if registry.exists() else b""

    def _configuration(self, imported: Path) -> str:
        shared = (SOURCES / "rabbitmq.conf").read_text()
        here = {
            "load_definitions": str(imported),
            "listeners.tcp.default": f"{HOST}:{self.ports[5672]}",
        }
        shared = re.sub(rf"(?m)^({'|'.join(map(re.escape, here))})\s*=.*\n", "", shared)
        return shared + "".join(f"{name} = {value}\n" for name, value in here.items())


def plan_rabbitmq(ports: dict[int, int], run_dir: Path, user: str, password: str) -> RabbitMQ:
    """The broker with its data under `run_dir`; `ports` also holds 25672 (distribution) and 4369 (epmd)."""
    home = run_dir / "rabbitmq"
    return RabbitMQ(
        name="rabbitmq",
        argv=(),  # found when it is started
        env=environment(home, ports),
        ports=ports,
        probe=(ports[5672], ""),
        needs=("epmd",),
        home=home,
        user=user,
        password=password,
    )


def plan_epmd(port: int, run_dir: Path) -> Program:
    """Erlang's port mapper, one a stack; left to itself the broker would start one that outlives it."""
    return Epmd(
        name="epmd",
        argv=("epmd", "-port", str(port), "-address", HOST),
        env={},
        ports={4369: port},
        probe=(port, ""),
    )


class Epmd(Program):
    """The port mapper: ready when it listens."""

    @property
    def url(self) -> str:
        """Where it listens; it speaks no protocol that has URLs."""
        return f"{HOST}:{self.port}"

    def prepare(self, env: Mapping[str, str]) -> None:
        """See to it that the broker, and Erlang with it, is installed."""
        packages.ensure_broker()

    def is_ready(self) -> bool:
        """Whether something listens on its port."""
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0


def environment(home: Path, ports: dict[int, int]) -> dict[str, str]:
    """What keeps the broker out of the machine's directories, ports and node names."""
    return {
        "HOME": str(home),  # where the Erlang cookie is made
        "ERL_EPMD_PORT": str(ports[4369]),
        "ERL_EPMD_ADDRESS": HOST,
        "RABBITMQ_NODENAME": NODE,
        "RABBITMQ_DIST_PORT": str(ports[25672]),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(home / "data"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_ALLOW_INPUT": "1",  # the start script then becomes the node instead of watching over it
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERL_FLAGS,
    }


def user_definition(user: str, password: str) -> dict[str, object]:
    """The user beside the topology: a node that imports definitions makes no default user."""
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    return {
        "users": [{"name": user, "password": password, "tags": "administrator"}],
        "permissions": [{"user": user, "vhost": "/", **everything}],
    }


def _greets(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=2) as probe:
            probe.sendall(AMQP_GREETING)
            return probe.recv(1) == b"\x01"  # a method frame: Connection.Start
    except OSError:
        return False


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
