"""What the suite measured, for the report: reports/concurrency.json and pictures beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.compose import ROOT

REPORTS = ROOT / "reports"


class Figures:
    """Collects figures by name and writes them down as they come, so that a failure loses none."""

    def __init__(self, directory: Path = REPORTS) -> None:
        self._directory = directory
        self._figures: dict[str, Any] = {}
        self._directory.mkdir(exist_ok=True)

    def add(self, name: str, **figures: Any) -> None:
        """Keep figures under `name`."""
        self._figures[name] = figures
        (self._directory / "concurrency.json").write_text(json.dumps(self._figures, indent=1) + "\n")

    def picture(self, name: str, svg: str) -> None:
        """Keep an SVG document as reports/concurrency-NAME.svg."""
        (self._directory / f"concurrency-{name}.svg").write_text(svg)
