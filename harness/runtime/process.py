"""Starts, finds and ends processes of ours, and never touches anybody else's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.errors import StackError
from harness.runtime.compose import ROOT

MARK = "TR_STARTED_BY"  # in the environment of all that we start: the run directory, by which orphans are recognised
START_TOLERANCE_SECONDS = (
    1.5  # seconds; psutil derives a start time from the boot time, which a clock adjustment shifts a little
)
POLL_SECONDS = 0.05  # seconds between two looks at a condition


@dataclass(frozen=True)
class Identity:
    """A process id together with its start time (seconds since the epoch), so that a reused id is not mistaken."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Identity:
        """The identity of a running process; raises psutil.NoSuchProcess."""
        return cls(pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """The process itself, or None when it has ended (a zombie has ended)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < START_TOLERANCE_SECONDS
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self.find() is not None


def spawn(argv: Iterable[str], env: Mapping[str, str], log: Path, run_dir: Path) -> Identity:
    """Start a process in a session of its own, its output appended to `log`. Raises StackError if it cannot start."""
    command = list(argv)
    environment = {**_inherited(), **env, MARK: str(run_dir)}
    with log.open("ab") as output:
        try:
            started = subprocess.Popen(
                command,
                env=environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise StackError(f"cannot start {command[0]}: {error}") from error
    # A child of ours is reaped as soon as it ends, so that it does not linger as a zombie.
    threading.Thread(target=started.wait, name=f"reap-{started.pid}", daemon=True).start()
    try:
        return Identity.of(started.pid)
    except psutil.NoSuchProcess:
        return Identity(started.pid, time.time())


def terminate(identity: Identity, how: signal.Signals, grace: float) -> None:
    """Ask the process to end, give it `grace` seconds, then kill it with everything that it started."""
    leader = identity.find()
    tree = find_family(leader) if leader else []
    if leader:
        with contextlib.suppress(psutil.NoSuchProcess):
            leader.send_signal(how)
        wait_for(lambda: not _runs(leader), seconds=grace)
    kill_all(tree)


def kill(identity: Identity) -> None:
    """SIGKILL the process and everything that it started, and wait until they are gone."""
    leader = identity.find()
    kill_all(find_family(leader) if leader else [])


def kill_all(processes: list[psutil.Process]) -> None:
    """SIGKILL `processes` and wait until they are gone. Raises StackError for one that does not go."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    # A zombie holds nothing any more; whoever started it reaps it.
    if not wait_for(lambda: not any(_runs(process) for process in processes), seconds=10):
        raise StackError(f"still running after SIGKILL: {[p.pid for p in processes if _runs(p)]}")


def find_family(leader: psutil.Process) -> list[psutil.Process]:
    """The process, its descendants and the rest of its process group.

    PostgreSQL's backends make sessions of their own, so that the group alone would miss them.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        group = [process for process in psutil.process_iter() if _group(process.pid) == leader.pid]
        return list({process.pid: process for process in (leader, *leader.children(recursive=True), *group)}.values())
    return [leader]


def find_leftovers(run_dir: Path) -> list[psutil.Process]:
    """What an earlier run in `run_dir` started and left behind: known by our mark, or at work in its data directories.

    PostgreSQL writes its status over its environment, hence the second way.
    """
    return [process for process in psutil.process_iter() if _runs(process) and _belongs(process, run_dir)]


def wait_for(condition: Callable[[], bool], seconds: float, cancelled: threading.Event | None = None) -> bool:
    """Look until `condition` holds; False after `seconds`, or as soon as `cancelled` is set."""
    pause = cancelled or threading.Event()
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline or pause.wait(POLL_SECONDS):
            return False
    return True


def _inherited() -> dict[str, str]:
    """Of our own environment only what any process needs: settings come from compose.yaml alone."""
    names = ("PATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_START", "COVERAGE_FILE")
    return {"PYTHONUNBUFFERED": "1", **{name: os.environ[name] for name in names if name in os.environ}}


def _belongs(process: psutil.Process, run_dir: Path) -> bool:
    try:
        if process.environ().get(MARK) == str(run_dir):
            return True
        return process.name() == "postgres" and Path(process.cwd()) == run_dir / "postgres" / "data"
    except (psutil.Error, OSError):
        return False


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return -1
