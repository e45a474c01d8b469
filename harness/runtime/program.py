"""One process of the stack as the harness runs it: what to start, when it is ready, how it ends."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from harness.errors import StackError
from harness.runtime.compose import Service
from harness.runtime.ports import HOST

Ports = Mapping[str, Mapping[int, int]]  # service → port in compose.yaml → port here
ADDRESS = re.compile(r"(?<![\w.-])(?P<host>127\.0\.0\.1|[a-z][a-z0-9-]*):(?P<port>\d+)\b")


def is_healthy(port: int, path: str) -> bool:
    """Whether a GET of `path` at a port here is answered with 200 this instant."""
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
    """A web service or fake: started as compose.yaml says, ready when its health check answers 200."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str]
    ports: dict[int, int]
    probe: tuple[int, str]  # port here, path
    needs: tuple[str, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM

    @property
    def port(self) -> int:
        """The main port here."""
        return next(iter(self.ports.values()))

    @property
    def url(self) -> str:
        """Where it is, without credentials."""
        return f"http://{HOST}:{self.port}"

    def prepare(self, env: Mapping[str, str]) -> None:
        """Put on disk what has to be there before the process starts with `env`."""

    def is_ready(self) -> bool:
        """Whether it answers its health check with 200 this instant."""
        return is_healthy(*self.probe)

    def after_ready(self) -> None:
        """What has to be done in it before others may use it."""

    def is_durable(self) -> bool:
        """Whether a SIGKILL from now on loses nothing that was acknowledged."""
        return True


def plan_web(service: Service, ports: Ports, needs: tuple[str, ...]) -> Program:
    """The native form of a service that is Python in its container too. Raises StackError if it has no health check."""
    if service.probe is None or service.command[:1] != ("python",):
        raise StackError(f"compose.yaml: {service.name} is no Python service with an HTTP health check")
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
    """The service's environment with each `host:port` of compose.yaml replaced by where it is here."""
    own = ports[service.name]
    known = {**ports, HOST: own}
    env = {**service.environment, "BIND": HOST}
    if service.ports:
        env.setdefault("PORT", str(service.ports[0]))
    env = {name: ADDRESS.sub(lambda found: _relocate(found, known), value) for name, value in env.items()}
    for name in env.keys() & {"PORT", "GRPC_PORT"}:
        env[name] = str(own[int(env[name])])
    for name, host in list(env.items()):
        if name.endswith("_HOST") and host in ports:
            port = name.removesuffix("_HOST") + "_PORT"
            env |= {name: HOST, port: str(ports[host][int(env[port])])}
    return env


def _relocate(found: re.Match[str], ports: Ports) -> str:
    port = ports.get(found["host"], {}).get(int(found["port"]))
    return f"{HOST}:{port}" if port else found[0]


def make_state_dir(run_dir: Path, name: str) -> Path:
    """Where a program keeps its data; made if it is not there."""
    path = run_dir / name
    path.mkdir(parents=True, exist_ok=True)
    return path
