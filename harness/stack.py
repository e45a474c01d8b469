"""The running system as the suites see it: start it, ask where things are, kill and restart parts of it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from harness import compose, ports, process, variables
from harness.cleanup import make_room, take_down
from harness.errors import StackError
from harness.plan import assign_ports, levels, needs, programs, with_needs
from harness.postgres import Postgres
from harness.process import Identity
from harness.program import Program, web
from harness.rundir import Record, RunDir

COMPOSE = compose.ROOT / "compose.yaml"
START_SECONDS = 60.0  # for one process to become ready; RabbitMQ takes five on two quiet cores
STOP_SECONDS = 10.0  # for one process to end by itself before it is killed


class Stack:
    """All processes of one run directory."""

    def __init__(
        self, run_dir: RunDir, assigned: dict[str, dict[int, int]], values: Mapping[str, str], quiet: bool = False
    ) -> None:
        self.run_dir = run_dir
        self._ports = assigned
        self._services = compose.load(COMPOSE, values)
        self._programs = programs(self._services, assigned, values, run_dir.path)
        self._quiet = quiet
        self._began = time.monotonic()
        self._cancelled = threading.Event()
        for record in run_dir.records():
            self._recall(record)

    @classmethod
    def up(
        cls,
        run_dir: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        only: Iterable[str] | None = None,
        detach: bool = False,
        quiet: bool = False,
        overrides: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Self:
        """Start everything, or `only` the services named with all that they need, and wait until it is ready.

        `env` sets variables of compose.yaml, `overrides` lays an environment over one process's. As a context manager
        it is taken down at the end; data stays in `run_dir` (default: TR_RUN_DIR, else .run) for the next time.
        Raises StackError, with nothing left running.
        """
        _refuse_docker()
        directory = RunDir(run_dir)
        with directory.locked():
            make_room(directory)
            directory.make()
            values = variables.resolve(directory.variables(), env or {}, compose.variables_of(COMPOSE))
            assigned = assign_ports(compose.load(COMPOSE, values))
            directory.keep_variables(values)
            directory.describe(assigned, None if detach else Identity.of(os.getpid()))
            for name, laid in (overrides or {}).items():
                directory.write(Record(name, overrides=dict(laid)))
        stack = cls(directory, assigned, values, quiet)
        try:
            names = with_needs(stack._programs, only or stack._programs)
            stack._start_all(names)
            stack._settle(names)
        except BaseException:
            stack.down()
            raise
        return stack

    @classmethod
    def attach(cls, run_dir: Path | str | None = None, quiet: bool = False) -> Self:
        """The stack that runs already. Raises StackError when there is none, or it came from another compose.yaml."""
        directory = RunDir(run_dir)
        written = directory.stack()
        if written is None or not directory.occupied():
            raise StackError(f"nothing runs in {directory.path}; start it with `python -m harness up`")
        assigned = {name: {int(p): here for p, here in own.items()} for name, own in written["ports"].items()}
        values = directory.variables()
        if assigned.keys() != compose.load(COMPOSE, values).keys():
            raise StackError("compose.yaml has other services than when the stack was started: take it down first")
        return cls(directory, assigned, values, quiet)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def down(self, volumes: bool = False) -> None:
        """End every process, those first that others do not need; `volumes` removes their data too."""
        self._cancelled.set()
        for level in reversed(levels(self._programs, self._programs)):
            running = [name for name in level if self.run_dir.record(name).alive]
            with ThreadPoolExecutor(len(running) or 1) as pool:
                list(pool.map(self.stop, running))
        take_down(self.run_dir, volumes)
        ports.release([here for own in self._ports.values() for here in own.values()])

    # ── One process ──

    def start(self, name: str) -> None:
        """Start `name` on the ports that it always had and wait until it is ready; no-op if it runs.

        Raises StackError, with the end of its log, if it ends or does not become ready within 60 s.
        """
        program, record = self._program(name), self.run_dir.record(name)
        if record.alive:
            return
        self._say(name, "starting")
        program.prepare(self.env(name))
        identity = process.spawn(program.argv, self.env(name), self.log_path(name), self.run_dir.path)
        record = replace(record, pid=identity.pid, started=identity.started, state="starting")
        self.run_dir.write(record)
        self._await(program, record)
        program.after_ready()
        self.run_dir.write(replace(record, state="running"))
        self._say(name, f"ready on {ports.HOST}:{program.port}")

    def stop(self, name: str) -> None:
        """End `name` as production would (SIGTERM, then time to finish), and wait until it is gone."""
        program, record = self._program(name), self.run_dir.record(name)
        self.run_dir.write(replace(record, state="stopped"))
        process.end(record.identity, program.stop_signal, STOP_SECONDS)
        self._say(name, "stopped")

    def kill(self, name: str) -> None:
        """SIGKILL `name` and everything that it started, and wait until they are gone."""
        self._program(name)
        record = self.run_dir.record(name)
        self.run_dir.write(replace(record, state="killed"))
        process.kill(record.identity)
        self._say(name, "killed")

    def restart(self, name: str, env: Mapping[str, str] | None = None) -> None:
        """Stop and start `name`; `env` is laid over its environment from now on, `{}` lifts what was laid before."""
        self.stop(name)
        if env is not None:
            self.run_dir.write(replace(self.run_dir.record(name), overrides=dict(env)))
        self.start(name)

    def start_replica(self, name: str) -> str:
        """Start one more process of a service, on ports of its own; returns the name that it goes by."""
        service = self._services.get(name)
        if service is None or name not in self._programs or service.kind in ("postgres", "rabbitmq"):
            raise StackError(f"{name!r} is no service that can be replicated here")
        number = 2 + sum(record.replica_of == name for record in self.run_dir.records())
        own = dict(zip(service.ports, ports.claim(list(service.ports)), strict=True))
        record = Record(f"{name}-{number}", replica_of=name, ports={str(port): here for port, here in own.items()})
        self.run_dir.write(record)
        self._recall(record)
        self.start(record.name)
        return record.name

    # ── Where things are ──

    def url(self, name: str) -> str:
        """The HTTP address of a service; RabbitMQ's AMQP URL, PostgreSQL's superuser DSN."""
        program = self._program(name)
        return program.admin_dsn("postgres") if isinstance(program, Postgres) else program.url

    def address(self, name: str, port: int) -> str:
        """`host:port` here of a port in compose.yaml, for instance ("inventory-service", 50051)."""
        return f"{ports.HOST}:{self._program(name).ports[port]}"

    def dsn(self, name: str) -> str:
        """The DSN of a service's own role; `name` is the service, its database container or the database."""
        return self._postgres.dsn(name)

    def dsns(self) -> dict[str, str]:
        """Each database with its role's DSN."""
        return {database.name: self.dsn(database.name) for database in self._postgres.databases}

    def ports_of(self, name: str) -> dict[int, int]:
        """Where each port of compose.yaml is here, the main one first."""
        return dict(self._program(name).ports)

    def admin_dsn(self, database: str) -> str:
        """A superuser's DSN for `database`."""
        return self._postgres.admin_dsn(database)

    def env(self, name: str) -> dict[str, str]:
        """The environment that `name` is started with."""
        return {**self._program(name).env, **self.run_dir.record(name).overrides}

    def log_path(self, name: str) -> Path:
        """Where the output of `name` goes, across restarts."""
        return self.run_dir.logs / f"{self._program(name).name}.log"

    def state(self, name: str) -> str:
        """`starting`, `running`, `stopped`, `killed` (by us) or `died` (by itself)."""
        self._program(name)
        return self.run_dir.record(name).observed

    @property
    def names(self) -> list[str]:
        """All programs, those first that others need; not all of them need be running."""
        return list(self._programs)

    # ── Inside ──

    @property
    def _postgres(self) -> Postgres:
        return cast(Postgres, self._program("postgres"))

    def _program(self, name: str) -> Program:
        if name not in self._programs:
            raise StackError(f"no service {name!r}; there are: {', '.join(self._programs)}")
        return self._programs[name]

    def _recall(self, record: Record) -> None:
        """Know a replica that was started earlier, perhaps by another process."""
        if record.replica_of:
            service = self._services[record.replica_of]
            own = {service.name: {int(port): here for port, here in record.ports.items()}}
            program = web(service, {**self._ports, **own}, needs(service, self._services))
            self._programs[record.name] = replace(program, name=record.name)

    def _start_all(self, names: list[str]) -> None:
        """Start each as soon as what it needs is ready. Raises the first failure; the others give up then."""
        with ThreadPoolExecutor(len(names)) as pool:
            started: dict[str, Future[None]] = {}
            for name in names:
                before = [started[needed] for needed in self._programs[name].needs]
                started[name] = pool.submit(self._start_after, name, before)
            try:
                done, _ = wait(started.values(), return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:
                self._cancelled.set()
                raise

    def _start_after(self, name: str, before: list[Future[None]]) -> None:
        for future in before:
            future.result()
        if not self._cancelled.is_set():
            self.start(name)

    def _await(self, program: Program, record: Record) -> None:
        settled: Callable[[], bool] = lambda: not record.alive or program.ready()  # noqa: E731
        in_time = process.wait_for(settled, START_SECONDS, self._cancelled)
        if self._cancelled.is_set():
            raise StackError(f"{program.name}: given up")
        if not in_time or not record.alive:
            trouble = f"not ready after {START_SECONDS:.0f} s" if record.alive else "ended while starting"
            log = self.log_path(program.name)
            raise StackError(f"{program.name} {trouble}; the end of {log}:\n{_tail(log)}")

    def _settle(self, names: list[str]) -> None:
        for name in names:
            if not process.wait_for(self._programs[name].settled, START_SECONDS, self._cancelled):
                raise StackError(f"{name} is up, but has not put on disk what it needs after a SIGKILL")

    def _say(self, name: str, what: str) -> None:
        if not self._quiet:
            print(f"[{time.monotonic() - self._began:6.1f}s] {name:<22} {what}", file=sys.stderr, flush=True)


def _refuse_docker() -> None:
    wanted = os.environ.get("STACK", "auto")
    if wanted == "docker":
        raise StackError("STACK=docker: the harness cannot drive containers yet; use STACK=native, or docker compose")
    if wanted not in ("auto", "native"):
        raise StackError(f"STACK={wanted}: has to be native, docker or auto")


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-lines:])
