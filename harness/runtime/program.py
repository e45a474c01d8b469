"""A program: the command, environment, ports and stop signal of one process, and how to check that it is ready."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import ClassVar

import psutil

from harness.errors import StackError
from harness.runtime.compose import Service
from harness.runtime.ports import HOST

Ports = Mapping[str, Mapping[int, int]]  # service → port in compose.yaml → port of this machine
ADDRESS = re.compile(r"(?<![\w.-])(?P<host>127\.0\.0\.1|[a-z][a-z0-9-]*):(?P<port>\d+)\b")


def is_healthy(port: int, path: str) -> bool:
    """Return whether GET `path` on a local port now answers 200."""
    connection = HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


@dataclass
class Program:
    """One process that the harness starts. The base class serves web services and fakes.

    `ports` maps each port of compose.yaml to the port of this machine, the main one first.
    """

    turns: ClassVar[int] = 1  # of its start, each with the same limit. The nodes of a cluster join in turn

    name: str
    argv: tuple[str, ...]
    env: dict[str, str]
    ports: dict[int, int]
    probe: tuple[int, str]  # the port of this machine, and the path
    needs: tuple[str, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM

    @property
    def port(self) -> int:
        """The main port on this machine."""
        return next(iter(self.ports.values()))

    @property
    def listen_ports(self) -> tuple[int, ...]:
        """The ports of this machine on which the process itself listens."""
        return tuple(self.ports.values())

    @property
    def url(self) -> str:
        """The address, without credentials."""
        return f"http://{HOST}:{self.port}"

    def prepare(self, env: Mapping[str, str]) -> None:
        """Write the files that the process needs before it starts with `env`."""

    def is_ready(self) -> bool:
        """Return whether the health check now answers 200."""
        return is_healthy(*self.probe)

    def after_ready(self) -> None:
        """Complete the start before dependent programs start."""

    def is_durable(self) -> bool:
        """Return whether a SIGKILL from now on loses no acknowledged data."""
        return True

    def find_detached(self) -> list[psutil.Process]:
        """Return processes that belong to the program, but were not started by its process or have left its group."""
        return []


def plan_web(service: Service, ports: Ports, needs: tuple[str, ...]) -> Program:
    """Return the program of a Python service. Raises StackError if compose.yaml gives it no HTTP health check."""
    if service.probe is None or service.command[:1] != ("python",):
        raise StackError(f"compose.yaml: {service.name} must have a `python` command and an HTTP health check")
    probe_port, path = service.probe
    own = dict(ports[service.name])
    return Program(
        name=service.name,
        argv=(sys.executable, *service.command[1:]),
        env=native_environment(service, ports),
        ports=own,
        probe=(own[probe_port], path),
        needs=needs,
    )


def native_environment(service: Service, ports: Ports) -> dict[str, str]:
    """Return the service's environment with each `host:port` replaced by its address on this machine."""
    own = ports[service.name]
    known = {**ports, HOST: own}
    env = {**service.environment, "BIND": HOST}
    if service.ports:
        env.setdefault("PORT", str(service.ports[0]))
    env = {name: relocate(value, known) for name, value in env.items()}
    for name in env.keys() & {"PORT", "GRPC_PORT"}:
        env[name] = str(own[int(env[name])])
    for name, value in list(env.items()):
        hosts = value.split(",")
        if name.endswith("_HOST") and all(host in ports for host in hosts):
            port = name.removesuffix("_HOST") + "_PORT"
            here = (str(ports[host][int(given)]) for host, given in zip(hosts, env[port].split(","), strict=True))
            env |= {name: ",".join([HOST] * len(hosts)), port: ",".join(here)}
    return env


def relocate(text: str, ports: Ports) -> str:
    """Replace each `host:port` of compose.yaml in `text` by its address on this machine."""

    def replace(found: re.Match[str]) -> str:
        port = ports.get(found["host"], {}).get(int(found["port"]))
        return f"{HOST}:{port}" if port else found[0]

    return ADDRESS.sub(replace, text)


def make_state_dir(run_dir: Path, name: str) -> Path:
    """Create a program's data directory if it is missing, and return it."""
    path = run_dir / name
    path.mkdir(parents=True, exist_ok=True)
    return path
