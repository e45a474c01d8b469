"""The figures of the concurrency suite for the report: reports/concurrency.json and its pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.runtime.compose import ROOT

REPORTS = ROOT / "reports"


class Figures:
    """Stores figures by name. A run of a part of the suite replaces only its own figures."""

    def __init__(self, directory: Path = REPORTS) -> None:
        self._directory = directory
        self._directory.mkdir(exist_ok=True)

    def add(self, name: str, **figures: Any) -> None:
        """Write figures to the file at once, so that a later failure loses none."""
        path = self._directory / "concurrency.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**before, name: figures}, indent=1) + "\n")

    def save_picture(self, name: str, svg: str) -> None:
        """Write an SVG document to reports/concurrency-NAME.svg."""
        (self._directory / f"concurrency-{name}.svg").write_text(svg)
