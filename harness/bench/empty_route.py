"""The empty route: a Flask view that does nothing, under gunicorn. The bench reports CPU as multiples of its cost.

Milliseconds of CPU depend on the machine more than on the code. A multiple of the empty route can be compared
between machines.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from flask import Flask

from harness.bench.load_generator import CLIENTS, LoadGenerator
from harness.bench.meter import open_meter
from harness.bench.system import System
from harness.errors import StackError
from harness.runtime import ports
from harness.runtime.compose import ROOT
from harness.runtime.process import MARK, Identity, find_family, kill_all, listens, wait_for
from harness.runtime.program import is_healthy

SECONDS, START_SECONDS = 0.5, 20.0
MAX_RATE = 10_000  # requests per second, more than the server can answer
OPTIONS = f"--worker-class gthread --threads {CLIENTS} --keep-alive 75 --log-level critical --no-control-socket".split()

app = Flask(__name__)


@app.get("/")
def return_nothing() -> str:
    """Return an empty body."""
    return ""


class EmptyRoute:
    """A gunicorn server that runs next to the system and serves only the empty route."""

    def __init__(self, load_generator: LoadGenerator, server: psutil.Process, address: str) -> None:
        self._load_generator = load_generator
        self._server = server
        self._address = address

    def measure_cost(self) -> tuple[float, str]:
        """Return the CPU cost of one response and its unit, with as many clients as the system gets."""
        work = [["", "/"]] * int(MAX_RATE * SECONDS)
        with open_meter({"empty route": self._server}) as meter:
            load = self._load_generator.run(self._address, "get", work, clients=CLIENTS, seconds=SECONDS, meter=meter)
        return load.cost, meter.unit


@contextmanager
def serve_empty_route(system: System, load_generator: LoadGenerator) -> Iterator[EmptyRoute]:
    """Run the server until the block ends. Raises StackError when it does not start."""
    (port,) = ports.claim([8099])
    address = f"{ports.HOST}:{port}"
    command = [sys.executable, "-m", "gunicorn", *OPTIONS, "--bind", address, f"{__name__}:app"]
    marked = {**os.environ, MARK: str(system.run_dir.path)}  # so that the next run finds it if the bench is killed
    process = subprocess.Popen(command, cwd=ROOT, env=marked, start_new_session=True)
    server = psutil.Process(process.pid)
    try:
        identity = Identity.of(process.pid)
        if not wait_for(lambda: listens(identity, [port]) and is_healthy(port, "/"), START_SECONDS):
            raise StackError("the server of the empty route does not answer")
        yield EmptyRoute(load_generator, server, address)
    finally:
        kill_all(find_family(server))
        process.wait()
        ports.release([port])
