"""The bare route: an answer of a Flask view that does nothing, under gunicorn. CPU is told in multiples of it.

The bounds for CPU were set in milliseconds on a machine where a bare route took a quarter of one. Which machine it is
says more of such a figure than the code does; how many bare routes something costs says it of the code.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from flask import Flask

from harness.bench.load_generator import CLIENTS, Crew
from harness.bench.meter import meter
from harness.errors import StackError
from harness.runtime import ports
from harness.runtime.compose import ROOT
from harness.runtime.process import MARK, find_family, kill_all, wait_for
from harness.runtime.program import is_healthy
from harness.runtime.stack import Stack

SECONDS, START_SECONDS = 0.5, 20.0
EXPECTED = 10_000  # requests a second, more than will be answered
OPTIONS = f"--worker-class gthread --threads {CLIENTS} --keep-alive 75 --log-level critical --no-control-socket".split()

app = Flask(__name__)


@app.get("/")
def nothing() -> str:
    """The bare route."""
    return ""


class BareRoute:
    """A bare server beside the system."""

    def __init__(self, crew: Crew, server: psutil.Process, address: str) -> None:
        self._crew = crew
        self._server = server
        self._address = address

    def cost(self) -> tuple[float, str]:
        """What an answer costs now, and a meter's unit, under as many clients as the system is loaded with."""
        work = [["", "/"]] * int(EXPECTED * SECONDS)
        with meter({"bare": self._server}) as reading:
            asked = self._crew.drive(self._address, "get", work, clients=CLIENTS, seconds=SECONDS, meter=reading)
        return asked.cost, reading.unit


@contextmanager
def bare_route(stack: Stack, crew: Crew) -> Iterator[BareRoute]:
    """A bare server that ends with the block. Raises StackError when it does not start."""
    (port,) = ports.claim([8099])
    address = f"{ports.HOST}:{port}"
    command = [sys.executable, "-m", "gunicorn", *OPTIONS, "--bind", address, f"{__name__}:app"]
    marked = {**os.environ, MARK: str(stack.run_dir.path)}  # should we be killed, the next run knows it
    process = subprocess.Popen(command, cwd=ROOT, env=marked, start_new_session=True)
    server = psutil.Process(process.pid)
    try:
        if not wait_for(lambda: is_healthy(port, "/"), START_SECONDS):
            raise StackError("the bare server does not answer")
        yield BareRoute(crew, server, address)
    finally:
        kill_all(find_family(server))
        process.wait()
        ports.release([port])
