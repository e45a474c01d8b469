"""The shell scripts have correct syntax and print how to use them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.runtime.compose import ROOT

pytestmark = pytest.mark.unit

SCRIPTS = sorted([ROOT / ".ci" / "run", *(ROOT / "harness" / "dev").glob("*.sh")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_executable_and_parses(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_debian_chroot_without_a_command_prints_its_usage() -> None:
    script = str(ROOT / "harness" / "dev" / "debian_chroot.sh")
    done = subprocess.run([script, "trixie"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "trixie make demo" in done.stderr
