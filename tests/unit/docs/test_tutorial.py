"""Every step of docs/tutorial-first-saga-test.md, in a copy of the tests: files, edits, commands and their results."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.runtime.compose import ROOT

pytestmark = pytest.mark.unit

PAGE = ROOT / "docs" / "tutorial-first-saga-test.md"
_STEP = re.compile(r"<!-- (file|edit|run): ?(.*?) ?-->\n```\w+\n(.*?)```", re.DOTALL)
LINKED = (
    "services",
    "fakes",
    "harness",
    "specs",
    "proto",
    "docs",
    "pyproject.toml",
    "compose.yaml",
    ".env.example",
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with its own copy of the tests. The rest is linked."""
    for name in LINKED:
        if (ROOT / name).exists():
            (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_each_step_of_the_tutorial_has_the_shown_result(project: Path) -> None:
    steps = _STEP.findall(PAGE.read_text(encoding="utf-8"))
    assert [kind for kind, _, _ in steps] == ["file", "file", "run", "edit", "run", "edit", "run", "run"]
    for kind, subject, code in steps:
        if kind == "run":
            assert subject in run(project, code.removeprefix("$ "))
        else:
            apply(project / subject, code, is_edit=kind == "edit")


def apply(path: Path, code: str, *, is_edit: bool) -> None:
    """Create a file, or replace the line that a diff removes by the line that it adds."""
    path.parent.mkdir(exist_ok=True)
    if not is_edit:
        path.write_text(code, encoding="utf-8")
        return
    old, new = (line[1:] for line in code.splitlines())
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new), encoding="utf-8")


def run(project: Path, command: str) -> str:
    """Run a command of the page, and return its output."""
    here = command.replace(".venv/bin/python", sys.executable)
    done = subprocess.run(["sh", "-c", here], cwd=project, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr
