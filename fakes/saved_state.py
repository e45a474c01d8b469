"""The state of a fake in a file, so that a SIGKILL loses nothing that an answer has acknowledged.

Each line holds the parts that changed since the line before. The system keeps what was written when a process dies.
A start reads all lines and writes them again as one.
"""

import copy
import json
import os
from pathlib import Path
from typing import Any

Store = dict[str, Any]


class Collection(dict[str, Any]):
    """Objects by id. `touched` has the ids of those that were read or written one by one, so they may have changed."""

    def __init__(self, content: dict[str, Any]) -> None:
        super().__init__(content)
        self.touched = dict.fromkeys(content)  # in order, because the newest object comes last

    def __getitem__(self, name: str) -> Any:
        self.touched[name] = None
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.touched[name] = None
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        self.touched[name] = None
        return super().pop(name, *default)

    def __setitem__(self, name: str, value: Any) -> None:
        self.touched[name] = None
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        self.touched[name] = None
        super().__delitem__(name)

    def take_changes(self) -> Store:
        """Return the touched objects and the ids of deleted ones, and forget them."""
        touched, self.touched = self.touched, {}
        kept = {name: dict.__getitem__(self, name) for name in touched if name in self}
        return {"set": kept, "deleted": [name for name in touched if name not in self]} if touched else {}


def track(store: Store, empty: Store) -> Store:
    """Return the store with a `Collection` for each part that begins as an empty object."""
    return {name: Collection(part) if empty[name] == {} else part for name, part in store.items()}


class StateFile:
    """The file of one fake. The caller holds the lock of the state."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._written: Store = {}  # the parts that are no collections, as they were last written
        self._file = -1

    def read(self) -> Store:
        """Return the parts that were saved. A last line without its end was never acknowledged."""
        parts: Store = {}
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        for line in text.splitlines(keepends=True):
            if line.endswith("\n"):
                _apply(parts, json.loads(line))
        return parts

    def replace(self, parts: Store) -> None:
        """Write a new file with all parts."""
        draft = self._path.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        if self._file >= 0:
            os.close(self._file)
        self._file = os.open(draft, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._written = {}
        for part in parts.values():
            if isinstance(part, Collection):
                part.touched = dict.fromkeys(part)
        self.append(parts)
        draft.replace(self._path)

    def append(self, parts: Store) -> None:
        """Write the parts that changed, if any."""
        changes = {name: change for name, part in parts.items() if (change := self._find_change(name, part))}
        if changes:
            os.write(self._file, json.dumps(changes).encode() + b"\n")

    def _find_change(self, name: str, part: Any) -> Store:
        if isinstance(part, Collection):
            return part.take_changes()
        if name in self._written and self._written[name] == part:
            return {}
        self._written[name] = copy.deepcopy(part)
        return {"whole": part}


def _apply(parts: Store, changes: Store) -> None:
    for name, change in changes.items():
        if "whole" in change:
            parts[name] = change["whole"]
            continue
        kept = parts.setdefault(name, {})
        kept |= change["set"]
        for key in change["deleted"]:
            kept.pop(key, None)
