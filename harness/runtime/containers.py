"""The stack in containers, behind the same interface: compose makes them from compose.yaml, the harness drives them.

Containers are made from a copy of compose.yaml in the run directory, in which every port is published on the loopback,
order, health and restarts are the harness's own, and replicas and laid-over environments are written out.
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
from harness.runtime.program import Program
from harness.runtime.progress import report_every
from harness.runtime.run_directory import Record
from harness.runtime.stack import COMPOSE, Stack

OFFLINE = ROOT / "compose.offline.yaml"
GATEWAY = "api-gateway"
SUPERVISED = {"restart": "no", "healthcheck": {"disable": True}}


class ContainerStack(Stack):
    """All containers of one run directory. The engine has to run on this machine: its processes are looked at."""

    kind = "docker"

    def peers(self, name: str, port: int) -> str:
        """Where the other containers reach `name` and its replicas: the name has every address."""
        return f"{name}:{port}"

    def down(self, volumes: bool = False) -> None:
        """End and remove every container; `volumes` removes their data too. What they said stays in `logs`."""
        self._cancel()
        for name in self.names:
            if self.run_dir.read_record(name).pid:
                self.log_path(name)
        take_down(self.run_dir, volumes)
        ports.release([here for own in self._ports.values() for here in own.values()])

    def stop(self, name: str) -> None:
        """End `name` as production would, and wait until it is gone."""
        self._end(name, "stopped", "stop")

    def kill(self, name: str) -> None:
        """SIGKILL `name` and wait until it is gone."""
        self._end(name, "killed", "kill")

    def log_path(self, name: str) -> Path:
        """A file with what `name` has said until now, in containers that were replaced as well."""
        path, known = super().log_path(name), self._project.containers()
        with path.open("wb") as log:
            if (earlier := path.with_suffix(".earlier")).exists():
                log.write(earlier.read_bytes())
            log.flush()
            for container in (known[each] for each in self._containers(name) if each in known):
                subprocess.run(["docker", "logs", container], stdout=log, stderr=subprocess.STDOUT, check=True)
        return path

    def log_command(self, name: str, follow: bool) -> list[str]:
        """The command that prints the log of `name`."""
        return self._project.command("logs", "--no-color", *(["-f"] if follow else []), *self._containers(name))

    # ── Inside ──

    @property
    def _project(self) -> container_engine.Project:
        return container_engine.Project.of(self.run_dir.path)

    @classmethod
    def assign_ports(cls, services: Mapping[str, Service]) -> dict[str, dict[int, int]]:
        wanted = [(s.name, port) for s in services.values() for port in ports_of(s)]
        assigned: dict[str, dict[int, int]] = {name: {} for name in services}
        for (name, port), here in zip(wanted, ports.claim([port for _, port in wanted]), strict=True):
            assigned[name][port] = here
        return assigned

    def _plan(self, values: Mapping[str, str], run_dir: Path) -> dict[str, Program]:
        return plan_programs(self._services, self._ports, container_engine.Project.of(run_dir))

    def _prepare_start(self, names: Iterable[str], build: bool = False) -> None:
        """Have compose make the containers of `names`, anew where what they are made from has changed."""
        wanted = [container for name in names for container in self._containers(name)]
        wanted += [RENDERER] if GATEWAY in wanted else []
        self.report("compose", f"{'building and ' if build else ''}making {', '.join(wanted)}")
        self.run_dir.write_file(container_engine.FILE, yaml.safe_dump(self._document(), sort_keys=False))
        built = [name for name in wanted if build and "build" in self._raw(name)]
        with report_every("building" if built else "making", functools.partial(self.report, "compose")):
            if built:
                self._project.run_compose("build", *built)
            self._project.run_compose("up", "--no-start", "--no-deps", "--no-build", *wanted)

    def _apply_changed_env(self, name: str) -> None:
        """The environment of `name` has changed: it gets a new container, and its log goes on."""
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
        except psutil.NoSuchProcess:  # it has ended already, which is seen when it is waited for
            return Identity(pid, time.time())

    def _render(self) -> None:
        """Run the renderer to its end. Raises StackError with its one line."""
        (container,) = self._project.ids([RENDERER])
        container_engine.run_docker("start", "--attach", container)

    def _end(self, name: str, state: str, how: str) -> None:
        containers = self._project.ids(self._containers(name))
        self.run_dir.write_record(self._record_in_state(name, state))
        with ThreadPoolExecutor(len(containers)) as pool:
            list(pool.map(lambda container: _end_container(container, how), containers))
        self.log_path(name)  # what it said is there without it
        self.report(name, state)

    def _containers(self, name: str) -> tuple[str, ...]:
        """The containers that stand for a program: all database servers are one."""
        self.program(name)
        return tuple(n for n, service in self._services.items() if native_name(service) == name) or (name,)

    def _document(self) -> dict[str, Any]:
        """compose.yaml as these containers are made from it, every variable put in."""
        records = {record.name: record for record in self.run_dir.read_records()}
        names = [*self._services, *(record.name for record in records.values() if record.replica_of)]
        return {
            "volumes": _read_file(COMPOSE)["volumes"],
            "services": {name: self._container(name, records) for name in names},
        }

    def _container(self, name: str, records: Mapping[str, Record]) -> dict[str, Any]:
        """One service as compose has it, with what is different here."""
        described = self._raw(name)
        record = records.get(GATEWAY if name == RENDERER else name, Record(name))
        own = {int(p): here for p, here in record.ports.items()} or self._ports[name]
        described = _interpolate_all(described, self._values) | SUPERVISED
        described["environment"] |= {variable: _escape(value) for variable, value in record.overrides.items()}
        described["ports"] = [f"{ports.HOST}:{here}:{port}" for port, here in own.items()]
        if record.replica_of:
            described["networks"] = {"default": {"aliases": [record.replica_of]}}
        return {key: value for key, value in described.items() if key not in ("depends_on", "expose")}

    def _raw(self, name: str) -> Any:
        """The service as the files have it; the gateway is its stand-in where no Kong image is."""
        original = self.run_dir.read_record(name).replica_of or name
        found = _read_file(COMPOSE)["services"][original]
        if original != GATEWAY:
            return found
        if not container_engine.has_image(found["image"]):
            laid = _read_file(OFFLINE)["services"][GATEWAY]
            found |= laid | {"environment": found["environment"] | laid["environment"]}
        found["environment"]["KONG_STATUS_LISTEN"] = f"0.0.0.0:{STATUS[0]}"
        return found


def _end_container(container: str, how: str) -> None:
    subprocess.run(["docker", how, container], capture_output=True, check=False)  # it may have ended by itself
    container_engine.run_docker("wait", container)


def _read_file(path: Path) -> Any:
    return copy.deepcopy(_parse(path))


_parse = functools.cache(lambda path: yaml.safe_load(path.read_text()))


def _interpolate_all(raw: Any, values: Mapping[str, str]) -> Any:
    """`raw` with every variable put in, so that nothing of the caller's own environment can get in."""
    if isinstance(raw, dict):
        return {key: _interpolate_all(value, values) for key, value in raw.items()}
    if isinstance(raw, list):
        return [_interpolate_all(value, values) for value in raw]
    return _escape(interpolate(raw, values)) if isinstance(raw, str) else raw


def _escape(text: str) -> str:
    return text.replace("$", "$$")
