"""A planted defect: a guard taken away, by replacing a piece of text that must be there exactly once."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Stale(Exception):
    """The text that a mutant replaces is not there exactly once: the code has moved on, and so must the mutant."""


@dataclass(frozen=True)
class Edit:
    """`old` → `new` in one file."""

    file: str
    old: str
    new: str

    @contextmanager
    def applied(self, tree: Path) -> Iterator[None]:
        """The file beneath `tree` rewritten for as long as the block lasts. Raises Stale."""
        path = tree / self.file
        text, times = path.read_text(), path.stat()
        if text.count(self.old) != 1:
            raise Stale(f"{self.file} has {text.count(self.old)} times, not once:\n{self.old}")
        path.write_text(text.replace(self.old, self.new))
        try:
            yield
        finally:
            path.write_text(text)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # its bytecode goes by that


@dataclass(frozen=True)
class Mutant:
    """A defect in words, the guard that it takes away, the claim that it breaks, and the tests that have to notice."""

    name: str
    guard: str
    claim: str
    edits: tuple[Edit, ...]
    caught_by: tuple[str, ...]
    area: str

    @contextmanager
    def planted(self, tree: Path) -> Iterator[None]:
        """It is in the copy of the project at `tree` for as long as the block lasts. Raises Stale."""
        with ExitStack() as stack:
            for edit in self.edits:
                stack.enter_context(edit.applied(tree))
            yield


def load() -> list[Mutant]:
    """Every mutant of the tables beside this file, in their order. Raises KeyError or TypeError for a malformed one."""
    return [
        _mutant(name, fields, table.stem)
        for table in sorted(HERE.glob("*.toml"))
        for name, fields in tomllib.loads(table.read_text()).items()
    ]


def _mutant(name: str, fields: dict[str, Any], area: str) -> Mutant:
    first = {key: fields.pop(key) for key in ("file", "old", "new")}
    edits = [first, *({"file": first["file"], **more} for more in fields.pop("also", []))]
    caught_by = tuple(fields.pop("caught_by"))
    return Mutant(name, edits=tuple(Edit(**edit) for edit in edits), caught_by=caught_by, area=area, **fields)
