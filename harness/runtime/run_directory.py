"""The run directory: what is written about a stack, so that another process can find, change and end it."""

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

from harness.runtime.compose import ROOT
from harness.runtime.process import Identity

# What `down` keeps and `down --volumes` clears.
DATA = ("postgres", "rabbitmq", "gateway", "variables.json", "compose.yaml", "logs")


@dataclass
class Record:
    """One process: who it is, and what was done to it last."""

    name: str
    pid: int = 0
    started: float = 0.0
    state: str = "stopped"  # starting, running, stopped or killed by us; `died` is seen, not written
    overrides: dict[str, str] = field(default_factory=dict)
    replica_of: str = ""
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def identity(self) -> Identity:
        """The process that was started last under this name."""
        return Identity(self.pid, self.started)

    @property
    def is_alive(self) -> bool:
        """Whether that process still runs."""
        return bool(self.pid) and self.identity.is_alive()

    @property
    def observed_state(self) -> str:
        """The state now: what was written, unless the process has ended by itself."""
        return "died" if self.state in ("starting", "running") and not self.is_alive else self.state


class RunDir:
    """The files of one run directory."""

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path or os.environ.get("TR_RUN_DIR") or ROOT / ".run").resolve()
        self.logs = self.path / "logs"
        self._stack = self.path / "stack.json"
        self._records = self.path / "processes"

    def create(self) -> None:
        """Make the directories."""
        for path in (self.path, self.logs, self._records):
            path.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory against another harness that would start or clear a stack in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def read_variables(self) -> dict[str, str]:
        """The variables of the last run here, secrets among them."""
        return dict(_read(self.path / "variables.json") or {})

    def write_variables(self, variables: dict[str, str]) -> None:
        """Keep them for the next run, whose data they open; readable by the owner only."""
        _write(self.path / "variables.json", variables)

    def write_file(self, name: str, text: str) -> None:
        """Keep a file that may hold secrets, whole or not at all; readable by the owner only."""
        _write_text(self.path / name, text)

    def read_stack(self) -> dict[str, Any] | None:
        """What `up` wrote about the stack, or None when there is none."""
        return _read(self._stack)

    def write_stack(self, kind: str, ports: dict[str, dict[int, int]], owner: Identity | None) -> None:
        """Write of what kind the stack is, its ports and whose it is; no owner means that it runs on by itself."""
        _write(self._stack, {"kind": kind, "ports": ports, "owner": [owner.pid, owner.started] if owner else None})

    def read_records(self) -> list[Record]:
        """All processes written about."""
        found = (_read(path) for path in sorted(self._records.glob("*.json")))
        return [Record(**raw) for raw in found if raw]

    def read_record(self, name: str) -> Record:
        """The process `name`; one that never ran is `stopped`."""
        raw = _read(self._records / f"{name}.json")
        return Record(**raw) if raw else Record(name)

    def write_record(self, record: Record) -> None:
        """Write about one process."""
        _write(self._records / f"{record.name}.json", asdict(record))

    def is_occupied(self) -> bool:
        """Whether a stack lives here: its owner does, or it was detached and a process of it does."""
        stack = self.read_stack()
        if stack is None:
            return False
        if stack["owner"]:
            return Identity(*stack["owner"]).is_alive()
        return any(record.is_alive for record in self.read_records())

    def delete_records(self) -> None:
        """Remove what was written about a stack that has ended; its data stays."""
        self._stack.unlink(missing_ok=True)
        shutil.rmtree(self._records, ignore_errors=True)

    def delete_data(self) -> None:
        """Remove the data as well, and nothing that is not ours."""
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
    _write_text(path, json.dumps(content, indent=1))


def _write_text(path: Path, text: str) -> None:
    """Write the whole file or nothing, so that a reader never meets half of it."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
