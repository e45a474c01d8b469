"""Start, find and end the harness's own processes, and no others."""

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

MARK = "TR_STARTED_BY"  # set to the run directory in every started process, which identifies orphans
START_TOLERANCE_SECONDS = 1.5  # psutil derives start times from the boot time, which clock adjustments shift
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Identity:
    """A process, identified by its pid and start time (seconds since the epoch), because pids are reused."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Identity:
        """Return the identity of a running process. Raises psutil.NoSuchProcess."""
        return cls(pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """Return the process, or None if it has ended. A zombie counts as ended."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < START_TOLERANCE_SECONDS
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def is_alive(self) -> bool:
        """Return whether the process still runs."""
        return self.find() is not None


def spawn(argv: Iterable[str], env: Mapping[str, str], log: Path, run_dir: Path) -> Identity:
    """Start a process in a new session and append its output to `log`. Raises StackError if it cannot start."""
    command = list(argv)
    environment = {**_inherit_environment(), **env, MARK: str(run_dir)}
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
    # The thread reaps the child as soon as it ends, so that no zombie remains.
    threading.Thread(target=started.wait, name=f"reap-{started.pid}", daemon=True).start()
    try:
        return Identity.of(started.pid)
    except psutil.NoSuchProcess:
        return Identity(started.pid, time.time())


def terminate(identity: Identity, how: signal.Signals, grace: float) -> None:
    """Send signal `how`, wait up to `grace` seconds, then kill the process and everything that it started."""
    leader = identity.find()
    tree = find_family(leader) if leader else []
    if leader:
        with contextlib.suppress(psutil.NoSuchProcess):
            leader.send_signal(how)
        wait_for(lambda: not _runs(leader), seconds=grace)
    kill_all(tree)


def kill(identity: Identity) -> None:
    """Send SIGKILL to the process and everything that it started, and wait until they have ended."""
    leader = identity.find()
    kill_all(find_family(leader) if leader else [])


def kill_all(processes: list[psutil.Process]) -> None:
    """Send SIGKILL to `processes` and wait until they have ended. Raises StackError if one still runs after 10 s."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    # A zombie holds no resources, and its parent reaps it.
    if not wait_for(lambda: not any(_runs(process) for process in processes), seconds=10):
        raise StackError(f"still running after SIGKILL: {[p.pid for p in processes if _runs(p)]}")


def find_family(leader: psutil.Process) -> list[psutil.Process]:
    """Return the process, its descendants and the rest of its process group.

    The group alone is not enough, because PostgreSQL's backends create their own sessions.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        group = [process for process in psutil.process_iter() if _group(process.pid) == leader.pid]
        return list({process.pid: process for process in (leader, *leader.children(recursive=True), *group)}.values())
    return [leader]


def listens(identity: Identity, ports: Iterable[int]) -> bool:
    """Return whether the process and everything that it started listen on all of `ports`."""
    leader = identity.find()
    family = find_family(leader) if leader else []
    return set(ports) <= {port for each in family for port in _listening_ports(each)}


def find_leftovers(run_dir: Path) -> list[psutil.Process]:
    """Return the live processes that a run in `run_dir` started.

    `MARK` in their environment identifies them. PostgreSQL overwrites its environment with its status, so its data
    directory identifies it.
    """
    return [process for process in psutil.process_iter() if _runs(process) and _belongs(process, run_dir)]


def wait_for(condition: Callable[[], bool], seconds: float, cancelled: threading.Event | None = None) -> bool:
    """Poll until `condition` is true. Return False after `seconds`, or as soon as `cancelled` is set."""
    pause = cancelled or threading.Event()
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline or pause.wait(POLL_SECONDS):
            return False
    return True


def _inherit_environment() -> dict[str, str]:
    """Return the few inherited variables. Settings come only from compose.yaml."""
    names = ("PATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_START", "COVERAGE_FILE")
    return {"PYTHONUNBUFFERED": "1", **{name: os.environ[name] for name in names if name in os.environ}}


def _belongs(process: psutil.Process, run_dir: Path) -> bool:
    try:
        if process.environ().get(MARK) == str(run_dir):
            return True
        place = Path(process.cwd())  # one server has its data in postgres/data, and the nodes of a cluster below it
        return process.name() == "postgres" and place.name == "data" and run_dir / "postgres" in place.parents
    except (psutil.Error, OSError):
        return False


def _listening_ports(process: psutil.Process) -> list[int]:
    try:
        return [found.laddr.port for found in process.net_connections("tcp") if found.status == psutil.CONN_LISTEN]
    except psutil.Error:
        return []


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
