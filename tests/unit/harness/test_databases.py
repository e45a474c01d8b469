"""The embedded PostgreSQL of the tests: a session removes the leftovers of a killed one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from harness.runtime import container_engine
from tests.support.databases import end_leftovers
from tests.support.running_stack import IN_CONTAINERS

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
KILLED = """
import os, signal
from tests.support.databases import Databases
print(Databases().database_for("user").addresses[0].host, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_server_of_a_killed_session_is_stopped_and_removed() -> None:
    session = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    home = Path(session.stdout.strip())
    runs = container_check(home) if IN_CONTAINERS else process_check(home)
    assert runs()
    end_leftovers()
    assert not home.exists()
    assert not runs()


def process_check(home: Path) -> Callable[[], bool]:
    server = psutil.Process(int((home / "postgres" / "data" / "postmaster.pid").read_text().split()[0]))
    return lambda: server.is_running() and server.status() != psutil.STATUS_ZOMBIE


def container_check(home: Path) -> Callable[[], bool]:
    return lambda: bool(container_engine.run_docker("ps", "-aq", "--filter", f"volume={home}"))
