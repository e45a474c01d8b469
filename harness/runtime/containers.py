"""The stack in containers, with the interface of the native stack.

Compose creates the containers from a copy of compose.yaml in the run directory. The copy publishes every port on the
loopback and contains the replicas and changed environments. It has no health checks, dependencies or restart policies,
because the harness starts, watches and restarts the containers itself.
"""

from __future__ import annotations

import copy
import functools
import subprocess
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import yaml

from harness.runtime import container_engine, ports
from harness.runtime.cleanup import take_down
from harness.runtime.compose import ROOT, Service, interpolate
from harness.runtime.container_programs import plan_programs, ports_of
from harness.runtime.gateway import RENDERER, STATUS
from harness.runtime.process import Identity
from harness.runtime.process_plan import native_name
from harness.runtime.program import Program, relocate
from harness.runtime.progress import report_every
from harness.runtime.run_directory import Record, RunDir
from harness.runtime.stack import COMPOSE, Stack

OFFLINE = ROOT / "compose.offline.yaml"
GATEWAY = "api-gateway"
OF_BROWSERS = ("CORS_ORIGINS", "PUBLIC_API_URL", "PUBLIC_STRIPE_JS_URL", "DEMO_INBOX_URL")
SUPERVISED = {"restart": "no", "healthcheck": {"disable": True}}


class ContainerStack(Stack):
    """All containers of one run directory. The engine must run on this machine, because the harness reads pids."""

    kind = "docker"

    def peers(self, name: str, port: int) -> str:
        """Return the address for other containers. One name resolves to `name` and all its replicas."""
        return f"{name}:{port}"

    def down(self, volumes: bool = False) -> None:
        """Stop and remove every container. `volumes` deletes their data, too. Their output stays in `logs`."""
        self._cancel()
        for name in self.names:
            if self.run_dir.read_record(name).pid:
                self.log_path(name)
        take_down(self.run_dir, volumes)
        ports.release([here for own in self._ports.values() for here in own.values()])

    def stop(self, name: str) -> None:
        """Stop `name` with its stop signal and wait until it has ended."""
        self._end(name, "stopped", "stop")

    def kill(self, name: str) -> None:
        """Send SIGKILL to `name` and wait until it has ended."""
        self._end(name, "killed", "kill")

    def log_path(self, name: str) -> Path:
        """Write the output of `name` to its log file, with that of replaced containers, and return the path."""
        path, known = super().log_path(name), self._project.containers()
        with path.open("wb") as log:
            if (earlier := path.with_suffix(".earlier")).exists():
                log.write(earlier.read_bytes())
            log.flush()
            for container in (known[each] for each in self._containers(name) if each in known):
                subprocess.run(["docker", "logs", container], stdout=log, stderr=subprocess.STDOUT, check=True)
        return path

    def log_command(self, name: str, follow: bool) -> list[str]:
        """Return the command that prints the log of `name`."""
        return self._project.command("logs", "--no-color", *(["-f"] if follow else []), *self._containers(name))

    # ── implementation ──

    @property
    def _project(self) -> container_engine.Project:
        return container_engine.Project.of(self.run_dir.path)

    @classmethod
    def assign_ports(cls, services: Mapping[str, Service], run_dir: RunDir) -> dict[str, dict[int, int]]:
        wanted = [(s.name, port) for s in services.values() for port in ports_of(s)]
        assigned: dict[str, dict[int, int]] = {name: {} for name in services}
        for (name, port), here in zip(wanted, ports.claim([port for _, port in wanted]), strict=True):
            assigned[name][port] = here
        return assigned

    def _plan(self, values: Mapping[str, str], run_dir: Path) -> dict[str, Program]:
        return plan_programs(self._services, self._ports, container_engine.Project.of(run_dir))

    def _prepare_start(self, names: Iterable[str], build: bool = False) -> None:
        """Create the containers of `names`. Compose replaces a container whose description has changed."""
        wanted = [container for name in names for container in self._containers(name)]
        wanted += [RENDERER] if GATEWAY in wanted else []
        self.report("compose", f"{'building and ' if build else ''}creating {', '.join(wanted)}")
        self.run_dir.write_file(container_engine.FILE, yaml.safe_dump(self._document(), sort_keys=False))
        built = [name for name in wanted if build and "build" in self._raw(name)]
        with report_every("building" if built else "making", functools.partial(self.report, "compose")):
            if built:
                self._project.run_compose("build", *built)
            self._project.run_compose("up", "--no-start", "--no-deps", "--no-build", *wanted)

    def _apply_changed_env(self, name: str) -> None:
        """Create a new container for `name` and keep the log of the old one."""
        path = self.log_path(name)
        path.replace(path.with_suffix(".earlier"))
        self._prepare_start([name])

    def _launch(self, name: str) -> Identity:
        if name == GATEWAY:
            self._render()
        containers = self._project.ids(self._containers(name))
        container_engine.run_docker("start", *containers)
        pid = int(container_engine.run_docker("inspect", "--format", "{{.State.Pid}}", containers[0]))
        try:
            return Identity.of(pid)
        except psutil.NoSuchProcess:  # it has ended already, and `_wait_until_ready` reports that
            return Identity(pid, time.time())

    def _listens(self, record: Record, ports: Iterable[int]) -> bool:
        """Return True: the engine itself listens, and it starts no container whose port another process has."""
        return True

    def _render(self) -> None:
        """Run the renderer and wait for its end. Raises StackError with its message."""
        (container,) = self._project.ids([RENDERER])
        container_engine.run_docker("start", "--attach", container)

    def _end(self, name: str, state: str, how: str) -> None:
        containers = self._project.ids(self._containers(name))
        self.run_dir.write_record(self._record_in_state(name, state))
        with ThreadPoolExecutor(len(containers)) as pool:
            list(pool.map(lambda container: _end_container(container, how), containers))
        self.log_path(name)  # stores the output before the container is removed
        self.report(name, state)

    def _containers(self, name: str) -> tuple[str, ...]:
        """Return the containers of a program. The program `postgres` has five."""
        self.program(name)
        return tuple(n for n, service in self._services.items() if native_name(service) == name) or (name,)

    def _document(self) -> dict[str, Any]:
        """Return the copy of compose.yaml for this stack, with all variables inserted."""
        records = {record.name: record for record in self.run_dir.read_records()}
        names = [*self._services, *(record.name for record in records.values() if record.replica_of)]
        return {
            "volumes": _read_file(COMPOSE)["volumes"],
            "services": {name: self._container(name, records) for name in names},
        }

    def _container(self, name: str, records: Mapping[str, Record]) -> dict[str, Any]:
        """Return one service of the copy."""
        described = self._raw(name)
        record = records.get(GATEWAY if name == RENDERER else name, Record(name))
        own = {int(p): here for p, here in record.ports.items()} or self._ports[name]
        described = _interpolate_all(described, self._published_values) | SUPERVISED
        described["environment"] |= {variable: _escape(value) for variable, value in record.overrides.items()}
        described["ports"] = [f"{ports.HOST}:{here}:{port}" for port, here in own.items()]
        aliases = {"aliases": [record.replica_of]} if record.replica_of else {}
        described["networks"] = {"default": aliases}  # the copy describes no network of its own
        return {key: value for key, value in described.items() if key not in ("depends_on", "expose")}

    @property
    def _published_values(self) -> dict[str, str]:
        """The variables, with the addresses of browsers on the published ports, because browsers run outside."""
        moved = {name: relocate(self._values[name], self._ports) for name in OF_BROWSERS if name in self._values}
        return {**self._values, **moved}

    def _raw(self, name: str) -> Any:
        """Return the service from the files. Without the Kong image, the gateway is the one of compose.offline.yaml."""
        original = self.run_dir.read_record(name).replica_of or name
        found = _read_file(COMPOSE)["services"][original]
        if original != GATEWAY:
            return found
        if not container_engine.has_image(found["image"]):
            offline = _read_file(OFFLINE)["services"][GATEWAY]
            found |= offline | {"environment": found["environment"] | offline["environment"]}
        found["environment"]["KONG_STATUS_LISTEN"] = f"0.0.0.0:{STATUS[0]}"
        return found


def _end_container(container: str, how: str) -> None:
    subprocess.run(["docker", how, container], capture_output=True, check=False)
    container_engine.run_docker("wait", container)


def _read_file(path: Path) -> Any:
    return copy.deepcopy(_parse(path))


_parse = functools.cache(lambda path: yaml.safe_load(path.read_text()))


def _interpolate_all(raw: Any, values: Mapping[str, str]) -> Any:
    """Insert every variable into `raw`, so that Compose cannot read the caller's environment."""
    if isinstance(raw, dict):
        return {key: _interpolate_all(value, values) for key, value in raw.items()}
    if isinstance(raw, list):
        return [_interpolate_all(value, values) for value in raw]
    return _escape(interpolate(raw, values)) if isinstance(raw, str) else raw


def _escape(text: str) -> str:
    return text.replace("$", "$$")
