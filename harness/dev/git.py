"""Run Git in this tree. An archive of the tree and the image of the suites have no Git."""

from __future__ import annotations

import subprocess

from harness.runtime.compose import ROOT


def run_git(*arguments: str) -> str | None:
    """Return the output of a Git command, or None without Git, outside a repository or after an error."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def read_revision() -> str:
    """Return the commit and the uncommitted changes. Without Git, all trees count as the same."""
    parts = [run_git("rev-parse", "HEAD"), run_git("diff", "HEAD", "--stat")]
    return "\n".join(part.strip() for part in parts if part)
