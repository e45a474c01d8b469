"""What git says of this tree, where there is git: an archive, or an image of the suites, has none."""

from __future__ import annotations

import subprocess

from harness.runtime.compose import ROOT


def run_git(*arguments: str) -> str | None:
    """What it prints; None without git, outside a repository, or when it refuses."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
