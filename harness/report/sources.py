"""What a run leaves in reports/, each file absent until something has written it."""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

NOTHING: dict[str, Any] = {
    "began": "", "seconds": 0.0, "exit": 5, "command": "", "commit": "", "whole": True, "machine": {},
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
        """What `--report` wrote; a run of nothing when there was none."""
        return {**NOTHING, **(self.json("run") or {})}

    def json(self, name: str) -> Any:
        """The content of NAME.json; None when it is not there or not whole."""
        path = self._reports / f"{name}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if name not in ("run", "bench", "bench-baseline") and self._older(path):
            self.stale.append(path.name)
        return content

    def pictures(self, prefix: str) -> list[tuple[str, str]]:
        """The SVG pictures PREFIX-*.svg by name, to stand in the page as they are."""
        found = sorted(self._reports.glob(f"{prefix}*.svg"))
        return [
            (_title(path.stem.removeprefix(prefix).strip("-")), _still(path.read_text(encoding="utf-8")))
            for path in found
        ]

    def _older(self, path: Path) -> bool:
        """Whether a file was written before the last run began: its figures are another run's."""
        run = self._reports / "run.json"
        return run.exists() and path.stat().st_mtime < run.stat().st_mtime - self.run["seconds"] - SLACK_SECONDS


def _title(stem: str) -> str:
    return stem.replace("-", " ").replace("_", " ")


def _still(svg: str) -> str:
    """Without declarations, and nothing that runs."""
    return re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<script.*?</script>", "", svg, flags=re.S)
