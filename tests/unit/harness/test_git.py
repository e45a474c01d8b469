"""Who asks git of a tree that it knows nothing of is told so, and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.dev import git

pytestmark = pytest.mark.unit


def test_a_tree_that_is_no_repository_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "ROOT", tmp_path)
    assert git.run_git("rev-parse", "HEAD") is None


def test_neither_does_a_machine_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git.run_git("--version") is None
