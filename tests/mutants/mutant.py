"""A planted defect: a guard taken away, by replacing a piece of text that must be there exactly once."""

from __future__ import annotations

import tomllib
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

    def apply(self, tree: Path) -> None:
        """Rewrite the file beneath `tree`. Raises Stale."""
        path = tree / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise Stale(f"{self.file} has {text.count(self.old)} times, not once:\n{self.old}")
        path.unlink()  # its bytecode goes by time and size: the new file has another inode, and a time of its own
        path.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True)
class Mutant:
    """A defect in words, the guard that it takes away, the claim that it breaks, and the tests that have to notice."""

    name: str
    guard: str
    claim: str
    edits: tuple[Edit, ...]
    caught_by: tuple[str, ...]
    area: str

    def apply(self, tree: Path) -> None:
        """Plant it in the copy of the project at `tree`. Raises Stale."""
        for edit in self.edits:
            edit.apply(tree)


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
