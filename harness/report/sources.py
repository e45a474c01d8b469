"""The files that a run writes to reports/. Each is missing until its command has run."""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

NO_RUN: dict[str, Any] = {
    "began": "", "seconds": 0.0, "exit": 5, "command": "", "commit": "", "full_run": True, "machine": {},
    "selected": 0, "not_run": [], "tests": {}, "claims": {}, "controls": [], "failures": [], "invariants": {},
    "memory": {"peak": 0, "during": ""},
}  # fmt: skip
SLACK_SECONDS = 5.0


class Sources:
    """The files of a reports folder."""

    def __init__(self, reports: Path) -> None:
        self._reports = reports
        self.stale: list[str] = []

    @cached_property
    def run(self) -> dict[str, Any]:
        """The content of run.json, or an empty run if the file is missing."""
        return {**NO_RUN, **(self.read_json("run") or {})}

    def read_json(self, name: str) -> Any:
        """Return the content of NAME.json, or None if it is missing or incomplete."""
        path = self._reports / f"{name}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if name not in ("run", "bench", "bench-against", "bench-baseline") and self._is_stale(path):
            self.stale.append(path.name)
        return content

    def read_pictures(self, prefix: str) -> list[tuple[str, str]]:
        """Return the title and the content of each picture PREFIX-*.svg, to embed them in the page."""
        return [
            (_make_title(path.stem.removeprefix(prefix).strip("-")), _clean(path.read_text(encoding="utf-8")))
            for path in sorted(self._reports.glob(f"{prefix}*.svg"))
        ]

    def _is_stale(self, path: Path) -> bool:
        """Return whether a file was written before the last run began."""
        run = self._reports / "run.json"
        return run.exists() and path.stat().st_mtime < run.stat().st_mtime - self.run["seconds"] - SLACK_SECONDS


def _make_title(stem: str) -> str:
    return stem.replace("-", " ").replace("_", " ")


def _clean(svg: str) -> str:
    """Remove declarations and scripts."""
    return re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<script.*?</script>", "", svg, flags=re.S)
