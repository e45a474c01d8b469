"""The run directory: files that describe a stack, so that another process can find, change and stop it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import StackError
from harness.runtime.compose import ROOT
from harness.runtime.process import Identity

# Kept by `down` and deleted by `down --volumes`.
DATA = ("postgres", "rabbitmq", "etcd", "gateway", "variables.json", "compose.yaml", "logs")


@dataclass
class Record:
    """The stored state of one process: processes/NAME.json in the run directory.

    `state` is the last command's result: starting, running, stopped or killed. `overrides` are variables that replace
    those of its program. A replica has `replica_of`, the name of its service, and its own `ports`.
    """

    name: str
    pid: int = 0
    started: float = 0.0
    state: str = "stopped"
    overrides: dict[str, str] = field(default_factory=dict)
    replica_of: str = ""
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def identity(self) -> Identity:
        """The identity of the process that was started last under this name."""
        return Identity(self.pid, self.started)

    @property
    def is_alive(self) -> bool:
        """Whether that process still runs."""
        return bool(self.pid) and self.identity.is_alive()

    @property
    def observed_state(self) -> str:
        """The current state: `died` if the process has ended by itself, otherwise `state`."""
        return "died" if self.state in ("starting", "running") and not self.is_alive else self.state


def default_path() -> Path:
    """Return TR_RUN_DIR, or .run in the repository."""
    return Path(os.environ.get("TR_RUN_DIR") or ROOT / ".run").resolve()


class RunDir:
    """The files of one run directory."""

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path).resolve() if path else default_path()
        self.logs = self.path / "logs"
        self._stack = self.path / "stack.json"
        self._records = self.path / "processes"

    def create(self) -> None:
        """Create the directories."""
        for path in (self.path, self.logs, self._records):
            path.mkdir(parents=True, exist_ok=True)

    def check_writable(self) -> None:
        """Raise StackError if this user cannot write to the directory, as in a read-only checkout."""
        nearest = next(path for path in (self.path, *self.path.parents) if path.exists())
        if not os.access(nearest, os.W_OK):
            raise StackError(
                f"{nearest} cannot be written. Name another directory, for example TR_RUN_DIR=/tmp/ticketremaster."
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the directory, so that no other process starts or deletes a stack in it. Raises StackError."""
        self.check_writable()
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def read_variables(self) -> dict[str, str]:
        """Return the variables of the last run, including its secrets."""
        return dict(_read(self.path / "variables.json") or {})

    def write_variables(self, variables: dict[str, str]) -> None:
        """Write the variables for the next run, which needs the same secrets to open its data. Mode 600."""
        _write(self.path / "variables.json", variables)

    def write_file(self, name: str, text: str) -> None:
        """Write a file that may contain secrets, atomically and with mode 600."""
        write_private(self.path / name, text)

    def read_stack(self) -> dict[str, Any] | None:
        """Return the description that `write_stack` wrote, or None if no stack was started."""
        return _read(self._stack)

    def write_stack(self, kind: str, ports: dict[str, dict[int, int]], owner: Identity | None) -> None:
        """Write the stack's kind, ports and owner. The owner is the process that stops it, or None for `--detach`."""
        _write(self._stack, {"kind": kind, "ports": ports, "owner": [owner.pid, owner.started] if owner else None})

    def ports(self) -> set[int]:
        """Return the ports of the stack that runs here, including those of its replicas and of killed programs."""
        stack = self.read_stack() if self.is_occupied() else None
        if stack is None:
            return set()
        assigned = [*stack["ports"].values(), *(record.ports for record in self.read_records())]
        return {here for own in assigned for here in own.values()}

    def read_records(self) -> list[Record]:
        """Return the records of all processes."""
        found = (_read(path) for path in sorted(self._records.glob("*.json")))
        return [Record(**raw) for raw in found if raw]

    def read_record(self, name: str) -> Record:
        """Return the record of `name`. A process that never ran is `stopped`."""
        raw = _read(self._records / f"{name}.json")
        return Record(**raw) if raw else Record(name)

    def write_record(self, record: Record) -> None:
        """Write the record of one process."""
        _write(self._records / f"{record.name}.json", asdict(record))

    def is_occupied(self) -> bool:
        """Return whether a stack runs here: its owner lives, or it is detached and its processes did not die.

        A detached stack whose processes were all stopped or killed by a command still runs, so they can be started.
        """
        stack = self.read_stack()
        if stack is None:
            return False
        if stack["owner"]:
            return Identity(*stack["owner"]).is_alive()
        states = [record.observed_state for record in self.read_records() if record.pid]
        return bool({"starting", "running"}.intersection(states) or (states and "died" not in states))

    def delete_records(self) -> None:
        """Delete the description and records of a stack that has ended. Its data stays."""
        self._stack.unlink(missing_ok=True)
        shutil.rmtree(self._records, ignore_errors=True)

    def delete_data(self) -> None:
        """Delete the data, and no file that the harness did not create."""
        for name in DATA:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return content


def _write(path: Path, content: object) -> None:
    write_private(path, json.dumps(content, indent=1))


def write_private(path: Path, text: str) -> None:
    """Write a file with mode 600 atomically, so that a reader never sees half of it."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
