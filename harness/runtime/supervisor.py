"""Start, stop and kill the programs of one run directory and read their states."""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from harness.errors import StackError
from harness.runtime import process
from harness.runtime.ports import HOST, is_free
from harness.runtime.program import Program
from harness.runtime.progress import print_line, report_every
from harness.runtime.run_directory import Record, RunDir

START_SECONDS = 180.0  # limit for each turn of a start. RabbitMQ takes 5 s on idle cores, and over 60 s on busy ones
RESTART_SECONDS = 60.0  # the same for a process that died, which is then killed and started again
STOP_SECONDS = 10.0  # limit for one process to end before it is killed

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 60.0  # seconds before a start that has failed is tried again


class Supervisor:
    """Controls the programs of one run directory."""

    def __init__(self, run_dir: RunDir, programs: dict[str, Program], quiet: bool = False) -> None:
        self.run_dir = run_dir
        self.programs = programs
        self._quiet = quiet
        self._began = time.monotonic()
        self._cancelled = threading.Event()
        self._underway: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._restarting: set[str] = set()
        self._failed_starts = Counter[str]()

    def start(self, name: str) -> None:
        """Start `name` on its old ports and wait until it is ready. No-op if it runs.

        Raises StackError with the end of its log if it ends or is not ready within START_SECONDS for each turn.
        """
        program, record = self.program(name), self.run_dir.read_record(name)
        if record.is_alive:
            return
        with self._unless_cancelled(name):
            self.report(name, "starting")
            program.prepare(self.env(name))
            identity = self._launch(name)
            record = replace(record, pid=identity.pid, started=identity.started, state="starting")
            self.run_dir.write_record(record)
        self._wait_until_ready(program, record)
        with self._unless_cancelled(name):
            program.after_ready()
            self.run_dir.write_record(replace(record, state="running"))
        self.report(name, f"ready on {HOST}:{program.port}")

    def stop(self, name: str) -> None:
        """Stop `name` as in production (stop signal, then up to 10 s) and wait until it has ended."""
        program, record = self.program(name), self._record_in_state(name, "stopped")
        self.run_dir.write_record(record)
        process.terminate(record.identity, program.stop_signal, STOP_SECONDS)
        process.kill_all(program.find_detached())
        self.report(name, "stopped")

    def kill(self, name: str) -> None:
        """Send SIGKILL to `name` and everything that it started, and wait until they have ended."""
        program, record = self.program(name), self._record_in_state(name, "killed")
        self.run_dir.write_record(record)
        process.kill(record.identity)
        process.kill_all(program.find_detached())
        self.report(name, "killed")

    def restart(self, name: str, env: Mapping[str, str] | None = None) -> None:
        """Stop and start `name`. `env` replaces all earlier changes of its environment, and `{}` removes them."""
        self.stop(name)
        record = self.run_dir.read_record(name)
        if env is not None and env != record.overrides:
            self.run_dir.write_record(replace(record, overrides=dict(env)))
            self._apply_changed_env(name)
        self.start(name)

    def restart_dead(self) -> None:
        """Begin to start each process that has ended by itself, as `restart: unless-stopped` does in containers.

        After a start that fails, the next one is later and later, at most a minute, as in containers.
        """
        for name in self.names:
            if name not in self._restarting and self.state(name) == "died":
                self._restarting.add(name)
                threading.Thread(target=self._restart_dead, args=(name,), name=f"restart-{name}", daemon=True).start()

    def env(self, name: str) -> dict[str, str]:
        """Return the environment with which `name` starts."""
        return {**self.program(name).env, **self.run_dir.read_record(name).overrides}

    def log_path(self, name: str) -> Path:
        """Return the log file of `name`, which all its restarts share."""
        return self.run_dir.logs / f"{self.program(name).name}.log"

    def log_command(self, name: str, follow: bool) -> list[str]:
        """Return the command that prints the log of `name`. With `follow`, it also prints new lines."""
        return ["tail", "-n", "+1", *(["-F"] if follow else []), str(self.log_path(name))]

    def state(self, name: str) -> str:
        """Return `starting`, `running`, `stopped`, `killed` (by the harness) or `died` (by itself)."""
        self.program(name)
        return self.run_dir.read_record(name).observed_state

    @property
    def names(self) -> list[str]:
        """All programs, running or not, dependencies first."""
        return list(self.programs)

    def program(self, name: str) -> Program:
        """Return the program `name`. Raises StackError with the known names for another one."""
        if name not in self.programs:
            raise StackError(f"no service {name!r}. Known services: {', '.join(self.programs)}")
        return self.programs[name]

    def start_all(self, names: list[str]) -> None:
        """Start each program as soon as its dependencies are ready. Raises the first failure and cancels the others.

        Plain threads are used, because a signal can make an executor lose the worker that it is starting. That worker
        would run on, and no code would wait for it.
        """
        started: dict[str, Future[None]] = {name: Future() for name in names}
        try:
            for name in names:
                before = [started[needed] for needed in self.programs[name].needs]
                threading.Thread(target=self._start_after, args=(started[name], name, before), daemon=True).start()
            done, _ = wait(started.values(), return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            self._cancel()
            raise

    def wait_until_durable(self, names: list[str]) -> None:
        """Wait until a SIGKILL of any of `names` would lose no data. Raises StackError after START_SECONDS."""
        for name in names:
            if not process.wait_for(self.programs[name].is_durable, START_SECONDS, self._cancelled):
                message = f"{name} runs, but did not write its state to disk within {START_SECONDS:.0f} s"
                raise StackError(f"{message}. See {self.log_path(name)}.")

    def _restart_dead(self, name: str) -> None:
        try:
            if self.state(name) == "died":  # else another terminal has stopped it meanwhile
                self.start(name)
            self._failed_starts.pop(name, None)
        except (StackError, OSError) as error:
            self.report(name, f"cannot be restarted: {error}")
            process.kill(self.run_dir.read_record(name).identity)  # it may run without use, as with a full disk
            self._failed_starts[name] += 1
            self._cancelled.wait(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** self._failed_starts[name]))
        finally:
            self._restarting.discard(name)

    def _launch(self, name: str) -> process.Identity:
        return process.spawn(self.program(name).argv, self.env(name), self.log_path(name), self.run_dir.path)

    def _apply_changed_env(self, name: str) -> None:
        """Apply a changed environment of `name` before its next start."""

    def _record_in_state(self, name: str, state: str) -> Record:
        return replace(self.run_dir.read_record(name), state=state)

    def _start_after(self, started: Future[None], name: str, before: list[Future[None]]) -> None:
        try:
            for future in before:
                future.result()
            self.start(name)
        except Exception as error:  # `start_all` raises it again
            started.set_exception(error)
        else:
            started.set_result(None)

    @contextmanager
    def _unless_cancelled(self, name: str) -> Iterator[None]:
        """Guard a part of the start of `name` that must not be interrupted by `_cancel`. Raises StackError after it."""
        with self._underway[name]:
            if self._cancelled.is_set():
                raise StackError(f"{name}: start cancelled, because another process failed or a signal arrived")
            yield

    def _cancel(self) -> None:
        """Cancel all starts. Afterwards nothing more is launched, and every launched process has its record."""
        self._cancelled.set()
        for name in self.names:
            with self._underway[name]:
                pass

    def _wait_until_ready(self, program: Program, record: Record) -> None:
        # A process of another stack can answer on the port while this one still starts or has failed to bind.
        is_decided: Callable[[], bool] = lambda: (  # noqa: E731
            not record.is_alive or (program.is_ready() and self._listens(record, program.listen_ports))
        )
        limit = (RESTART_SECONDS if program.name in self._restarting else START_SECONDS) * program.turns
        with report_every("starting", functools.partial(self.report, program.name)):
            in_time = process.wait_for(is_decided, limit, self._cancelled)
        if not self._cancelled.is_set() and not (in_time and record.is_alive):
            trouble = f"not ready after {limit:.0f} s" if record.is_alive else "ended while starting"
            taken = [port for port in program.listen_ports if not is_free(port) and not self._listens(record, [port])]
            if taken:
                trouble += f", because another process listens on port {taken[0]} (a new start takes another port)"
            log = self.log_path(program.name)
            raise StackError(f"{program.name} {trouble}; the end of {log}:\n{_tail(log)}")

    def _listens(self, record: Record, ports: Iterable[int]) -> bool:
        """Return whether the process of `record`, and no stranger, listens on the ports."""
        return process.listens(record.identity, ports)

    def report(self, name: str, what: str) -> None:
        """Print one line of progress unless the stack is quiet."""
        if not self._quiet:
            print_line(f"[{time.monotonic() - self._began:6.1f}s] {name:<22} {what}")


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-lines:])
