"""Log lines whose reader has gone are dropped: no traceback, and no request fails."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.runtime.compose import ROOT

pytestmark = pytest.mark.unit

SERVICE = """
import logging
from services.chassis import logs
logs.configure("test-service", "INFO")
"""
FAKE = """
import logging
from fakes import logs
logs.configure("fake-test")
"""
TWO_LINES = "logging.info('one'); logging.info('two')"
GATEWAY = "from fakes.kong.__main__ import log; log('INFO', 'an id', 'one'); log('INFO', 'an id', 'two')"


PROGRAMS = {"service": SERVICE + TWO_LINES, "fake": FAKE + TWO_LINES, "gateway": GATEWAY}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_log_line_without_a_reader_is_dropped(program: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", f"{program}; import os; os._exit(0)"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=ROOT, text=True, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


GRPC_PROGRAM = """
import services, grpc
from concurrent.futures import ThreadPoolExecutor
server = grpc.server(ThreadPoolExecutor(1))
server.add_insecure_port("127.0.0.1:0")
server.start()
server.stop(0)
"""


def test_grpc_writes_no_lines_of_its_own() -> None:
    environment = {**os.environ, "GRPC_TRACE": "http"}
    command = [sys.executable, "-c", GRPC_PROGRAM]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    assert ended.stderr == b""
