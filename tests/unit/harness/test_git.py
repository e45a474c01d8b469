"""`run_git` returns None if Git or the repository is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.dev import git

pytestmark = pytest.mark.unit


def test_tree_without_a_repository_gives_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "ROOT", tmp_path)
    assert git.run_git("rev-parse", "HEAD") is None


def test_machine_without_git_gives_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git.run_git("--version") is None
