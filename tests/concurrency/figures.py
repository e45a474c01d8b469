"""What the suite measured, for the report: reports/concurrency.json and pictures beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.runtime.compose import ROOT

REPORTS = ROOT / "reports"


class Figures:
    """Keeps figures by name, those of earlier runs too: a part of the suite replaces its own figures alone."""

    def __init__(self, directory: Path = REPORTS) -> None:
        self._directory = directory
        self._directory.mkdir(exist_ok=True)

    def add(self, name: str, **figures: Any) -> None:
        """Keep figures under `name`, at once, so that a failure loses none."""
        path = self._directory / "concurrency.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**before, name: figures}, indent=1) + "\n")

    def picture(self, name: str, svg: str) -> None:
        """Keep an SVG document as reports/concurrency-NAME.svg."""
        (self._directory / f"concurrency-{name}.svg").write_text(svg)
