"""Starts, stops and kills the programs of one run directory, and knows the state of each."""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from harness.errors import StackError
from harness.runtime import process
from harness.runtime.ports import HOST
from harness.runtime.program import Program
from harness.runtime.progress import report_every
from harness.runtime.run_directory import Record, RunDir

START_SECONDS = 60.0  # for one process to become ready; RabbitMQ takes five on two quiet cores
STOP_SECONDS = 10.0  # for one process to end by itself before it is killed


class Supervisor:
    """The programs of one run directory."""

    def __init__(self, run_dir: RunDir, programs: dict[str, Program], quiet: bool = False) -> None:
        self.run_dir = run_dir
        self.programs = programs
        self._quiet = quiet
        self._began = time.monotonic()
        self._cancelled = threading.Event()
        self._underway: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)

    def start(self, name: str) -> None:
        """Start `name` on the ports that it always had and wait until it is ready; no-op if it runs.

        Raises StackError, with the end of its log, if it ends or does not become ready within 60 s.
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
        """End `name` as production would (SIGTERM, then time to finish), and wait until it is gone."""
        program, record = self.program(name), self._record_in_state(name, "stopped")
        self.run_dir.write_record(record)
        process.terminate(record.identity, program.stop_signal, STOP_SECONDS)
        self.report(name, "stopped")

    def kill(self, name: str) -> None:
        """SIGKILL `name` and everything that it started, and wait until they are gone."""
        self.program(name)
        record = self._record_in_state(name, "killed")
        self.run_dir.write_record(record)
        process.kill(record.identity)
        self.report(name, "killed")

    def restart(self, name: str, env: Mapping[str, str] | None = None) -> None:
        """Stop and start `name`; `env` is laid over its environment from now on, `{}` lifts what was laid before."""
        self.stop(name)
        record = self.run_dir.read_record(name)
        if env is not None and env != record.overrides:
            self.run_dir.write_record(replace(record, overrides=dict(env)))
            self._apply_changed_env(name)
        self.start(name)

    def env(self, name: str) -> dict[str, str]:
        """The environment that `name` is started with."""
        return {**self.program(name).env, **self.run_dir.read_record(name).overrides}

    def log_path(self, name: str) -> Path:
        """Where the output of `name` goes, across restarts."""
        return self.run_dir.logs / f"{self.program(name).name}.log"

    def log_command(self, name: str, follow: bool) -> list[str]:
        """The command that prints the log of `name`, and goes on doing so."""
        return ["tail", "-n", "+1", *(["-F"] if follow else []), str(self.log_path(name))]

    def state(self, name: str) -> str:
        """`starting`, `running`, `stopped`, `killed` (by us) or `died` (by itself)."""
        self.program(name)
        return self.run_dir.read_record(name).observed_state

    @property
    def names(self) -> list[str]:
        """All programs, those first that others need; not all of them need be running."""
        return list(self.programs)

    def program(self, name: str) -> Program:
        """The program of that name; raises StackError when there is none."""
        if name not in self.programs:
            raise StackError(f"no service {name!r}; there are: {', '.join(self.programs)}")
        return self.programs[name]

    def start_all(self, names: list[str]) -> None:
        """Start each as soon as what it needs is ready. Raises the first failure; the others give up then.

        The threads are plain ones: an executor that a signal interrupts while it starts a worker forgets that worker,
        which then neither ends nor is waited for.
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
        """Wait until a SIGKILL of any of `names` would lose nothing. Raises StackError if that does not come about."""
        for name in names:
            if not process.wait_for(self.programs[name].is_durable, START_SECONDS, self._cancelled):
                raise StackError(f"{name} is up, but has not put on disk what it needs after a SIGKILL")

    def _launch(self, name: str) -> process.Identity:
        return process.spawn(self.program(name).argv, self.env(name), self.log_path(name), self.run_dir.path)

    def _apply_changed_env(self, name: str) -> None:
        """What has to be done when the environment of `name` has changed, before it is started again."""

    def _record_in_state(self, name: str, state: str) -> Record:
        return replace(self.run_dir.read_record(name), state=state)

    def _start_after(self, started: Future[None], name: str, before: list[Future[None]]) -> None:
        try:
            for future in before:
                future.result()
            self.start(name)
        except Exception as error:  # raised again where it is waited for
            started.set_exception(error)
        else:
            started.set_result(None)

    @contextmanager
    def _unless_cancelled(self, name: str) -> Iterator[None]:
        """A part of the start of `name` that is done whole or not at all. Raises StackError once all is given up."""
        with self._underway[name]:
            if self._cancelled.is_set():
                raise StackError(f"{name}: given up")
            yield

    def _cancel(self) -> None:
        """Give up what is starting: when this returns, nothing is launched any more, and all that was is written."""
        self._cancelled.set()
        for name in self.names:
            with self._underway[name]:
                pass

    def _wait_until_ready(self, program: Program, record: Record) -> None:
        is_decided: Callable[[], bool] = lambda: not record.is_alive or program.is_ready()  # noqa: E731
        with report_every("starting", functools.partial(self.report, program.name)):
            in_time = process.wait_for(is_decided, START_SECONDS, self._cancelled)
        if not self._cancelled.is_set() and not (in_time and record.is_alive):
            trouble = f"not ready after {START_SECONDS:.0f} s" if record.is_alive else "ended while starting"
            log = self.log_path(program.name)
            raise StackError(f"{program.name} {trouble}; the end of {log}:\n{_tail(log)}")

    def report(self, name: str, what: str) -> None:
        """Print one line of progress, unless the stack is quiet."""
        if not self._quiet:
            # One write per line, because several threads print.
            sys.stderr.write(f"[{time.monotonic() - self._began:6.1f}s] {name:<22} {what}\n")
            sys.stderr.flush()


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-lines:])
