"""The installed RabbitMQ, started without Debian's wrapper, which requires its own user and directories."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pika
from pika.exceptions import AMQPError

from harness.errors import StackError
from harness.runtime import packages
from harness.runtime.compose import ROOT
from harness.runtime.container_engine import run_command
from harness.runtime.ports import HOST
from harness.runtime.program import Program, make_state_dir

SOURCES = ROOT / "services" / "rabbitmq"
NODE = "ticketremaster@localhost"
AMQP_GREETING = b"AMQP\x00\x00\x09\x01"
# No management plugin, because with it the node takes five seconds longer to stop. The container has it.
PLUGINS = "[].\n"
# A small node: two schedulers, few I/O threads, no Erlang shell, distribution on the loopback only.
ERL_FLAGS = "-noinput +S 2:2 +SDio 2 +A 4 -kernel inet_dist_use_interface {127,0,0,1}"


@dataclass
class RabbitMQ(Program):
    """The broker. It imports its user and topology at every start, before it listens."""

    home: Path = Path()
    user: str = ""
    password: str = ""
    node: str = NODE

    @property
    def listen_ports(self) -> tuple[int, ...]:
        """The ports of AMQP and of the distribution. The port mapper is a process of its own."""
        return self.ports[5672], self.ports[25672]

    @property
    def url(self) -> str:
        """The AMQP URL, with credentials."""
        return f"amqp://{quote(self.user)}:{quote(self.password, safe='')}@{HOST}:{self.port}/%2F"

    def prepare(self, env: Mapping[str, str]) -> None:
        """Write the configuration, plugins, topology and user to the broker's directory."""
        self.argv = (str(packages.ensure_broker()),)
        _check_localhost()
        imported = make_state_dir(self.home, "definitions.d")
        self._write_topology(imported / "10-topology.json")
        _write_secret(imported / "20-user.json", json.dumps(user_definition(self.user, self.password)))
        (self.home / "enabled_plugins").write_text(PLUGINS)
        (self.home / "rabbitmq.conf").write_text(self._configuration(imported))

    def is_ready(self) -> bool:
        """Return whether the broker accepts the user and has the topology."""
        return self._accepts(lambda channel: channel.queue_declare("seat.release.queue", passive=True))

    def is_durable(self) -> bool:
        """Return whether the registry of quorum queues is on disk.

        RabbitMQ 3.10 writes it a few seconds after the first start. A node that is killed earlier creates its queues
        again, without messages and without a leader. It then refuses every publish.
        """
        topology = json.loads((SOURCES / "definitions.json").read_text())
        written = self.registry()
        return all(f"_{queue['name']}".encode() in written for queue in topology["queues"])

    def registry(self) -> bytes:
        """Return the registry of quorum queues from the disk, or b"" if it does not exist."""
        registry = self.home / "data" / self.node / "quorum" / self.node / "names.dets"
        return registry.read_bytes() if registry.exists() else b""

    def run_rabbitmqctl(self, *arguments: str) -> str:
        """Run a command of RabbitMQ's administrator on this node and return its output. Raises StackError."""
        tool = packages.ensure_broker().with_name("rabbitmqctl")
        variables = [f"{name}={value}" for name, value in self.env.items()]
        return run_command(["env", f"PATH={os.environ['PATH']}", *variables, str(tool), "-q", *arguments])

    def _accepts(self, work: Callable[[Any], Any]) -> bool:
        """Return whether the broker accepts the user and `work` on a channel."""
        if not _greets(self.port):  # pika would log an error for each earlier attempt
            return False
        try:
            with closing(pika.BlockingConnection(pika.URLParameters(self.url))) as connection:
                work(connection.channel())
        except (AMQPError, ValueError):  # pika raises ValueError if a new connection is reset at once
            return False
        return True

    def _write_topology(self, path: Path) -> None:
        shutil.copyfile(SOURCES / "definitions.json", path)

    def _configuration(self, imported: Path) -> str:
        shared = (SOURCES / "rabbitmq.conf").read_text()
        here = {
            "load_definitions": str(imported),
            "listeners.tcp.default": f"{HOST}:{self.ports[5672]}",
            **self._settings(),
        }
        shared = re.sub(rf"(?m)^({'|'.join(map(re.escape, here))})\s*=.*\n", "", shared)
        return shared + "".join(f"{name} = {value}\n" for name, value in here.items())

    def _settings(self) -> dict[str, str]:
        """Return more settings of rabbitmq.conf."""
        return {}


def plan_rabbitmq(ports: dict[int, int], run_dir: Path, user: str, password: str) -> RabbitMQ:
    """Return the broker with its data in `run_dir`. `ports` includes 25672 (distribution) and 4369 (epmd)."""
    home = run_dir / "rabbitmq"
    return RabbitMQ(
        name="rabbitmq",
        argv=(),  # `prepare` sets it
        env=environment(home, ports),
        ports=ports,
        probe=(ports[5672], ""),
        needs=("epmd",),
        home=home,
        user=user,
        password=password,
    )


def plan_epmd(port: int, run_dir: Path) -> Program:
    """Return Erlang's port mapper. Each stack has its own, because one that the broker starts does not end with it."""
    return Epmd(
        name="epmd",
        argv=("epmd", "-port", str(port), "-address", HOST),
        env={},
        ports={4369: port},
        probe=(port, ""),
    )


class Epmd(Program):
    """Erlang's port mapper, which is ready when it listens."""

    @property
    def url(self) -> str:
        """The `host:port`, because its protocol has no URLs."""
        return f"{HOST}:{self.port}"

    def prepare(self, env: Mapping[str, str]) -> None:
        """Install the broker, and with it Erlang, if it is missing."""
        packages.ensure_broker()

    def is_ready(self) -> bool:
        """Return whether a process listens on its port."""
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0


def environment(home: Path, ports: Mapping[int, int], node: str = NODE) -> dict[str, str]:
    """Return the variables that keep the broker's files, ports and node name separate from the machine's broker."""
    return {
        "HOME": str(home),  # the Erlang cookie is written there
        "ERL_EPMD_PORT": str(ports[4369]),
        "ERL_EPMD_ADDRESS": HOST,
        "RABBITMQ_NODENAME": node,
        "RABBITMQ_DIST_PORT": str(ports[25672]),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(home / "data"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_ALLOW_INPUT": "1",  # the start script then replaces itself by the node
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERL_FLAGS,
    }


def user_definition(user: str, password: str) -> dict[str, object]:
    """Return the user's definition. A node that imports definitions creates no default user."""
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    return {
        "users": [{"name": user, "password": password, "tags": "administrator"}],
        "permissions": [{"user": user, "vhost": "/", **everything}],
    }


def _check_localhost() -> None:
    """Raise StackError if the host part of the node's name has no address, because RabbitMQ would not start."""
    host = NODE.partition("@")[2]
    try:
        socket.gethostbyname(host)
    except OSError as error:
        raise StackError(f"the name {host} has no address. Add the line `{HOST} {host}` to /etc/hosts.") from error


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
