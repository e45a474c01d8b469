"""The embedded PostgreSQL of the tests: what a killed session leaves behind is cleared by the next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.databases import end_leftovers

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
KILLED = """
import os, signal
from tests.databases import Databases
print(Databases().database_for("user").host, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_server_of_a_killed_session_is_stopped_and_removed() -> None:
    session = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    home = Path(session.stdout.strip())
    server = psutil.Process(int((home / "postgres" / "data" / "postmaster.pid").read_text().split()[0]))
    assert server.is_running()
    end_leftovers()
    assert not home.exists()
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
