"""A mutant: a guard that is removed by replacing text that must occur exactly once in a file."""

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
    """The text that a mutant replaces does not occur exactly once. Update the mutant to the changed code."""


@dataclass(frozen=True)
class Edit:
    """A replacement of `old` by `new` in one file."""

    file: str
    old: str
    new: str

    @contextmanager
    def apply(self, tree: Path) -> Iterator[None]:
        """Edit the file in `tree` until the block ends. Raises Stale."""
        path = tree / self.file
        text, times = path.read_text(), path.stat()
        if text.count(self.old) != 1:
            raise Stale(f"{self.file} has this text {text.count(self.old)} times instead of once:\n{self.old}")
        path.write_text(text.replace(self.old, self.new))
        try:
            yield
        finally:
            path.write_text(text)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # Python reuses bytecode by this time


@dataclass(frozen=True)
class Mutant:
    """A defect, the guard that it removes, the claim that it breaks, and the tests that must catch it."""

    name: str
    guard: str
    claim: str
    edits: tuple[Edit, ...]
    caught_by: tuple[str, ...]
    area: str

    @contextmanager
    def apply(self, tree: Path) -> Iterator[None]:
        """Put the mutant into the copy of the project at `tree` until the block ends. Raises Stale."""
        with ExitStack() as stack:
            for edit in self.edits:
                stack.enter_context(edit.apply(tree))
            yield


def read_mutants() -> list[Mutant]:
    """Return every mutant of the TOML files in this folder. Raises KeyError or TypeError for a malformed one."""
    return [
        _parse(name, fields, table.stem)
        for table in sorted(HERE.glob("*.toml"))
        for name, fields in tomllib.loads(table.read_text()).items()
    ]


def _parse(name: str, fields: dict[str, Any], area: str) -> Mutant:
    first = {key: fields.pop(key) for key in ("file", "old", "new")}
    edits = [first, *({"file": first["file"], **more} for more in fields.pop("also", []))]
    caught_by = tuple(fields.pop("caught_by"))
    return Mutant(name, edits=tuple(Edit(**edit) for edit in edits), caught_by=caught_by, area=area, **fields)
