"""How fast this machine is just now: what every figure of the bench is measured in.

Rates are counted in *floors*, the bare SQL of a hold (`floor.py`); CPU in *bare routes*, each an answer of a Flask view
that does nothing, under gunicorn. Milliseconds alone say more of the machine and its other tenants than of the code.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan

import psutil
from flask import Flask

from harness import ports
from harness.bench import floor
from harness.bench.drive import CLIENTS, Crew, used_by
from harness.compose import ROOT
from harness.errors import StackError
from harness.process import MARK, family, kill_all, wait_for
from harness.program import answers
from harness.stack import Stack

FLOOR_SECONDS, ROUTE_SECONDS, START_SECONDS = 1.0, 0.5, 20.0
EXPECTED = 10_000  # requests a second, more than will be answered

app = Flask(__name__)


@app.get("/")
def nothing() -> str:
    """The bare route."""
    return ""


@dataclass(frozen=True)
class Pace:
    """`floor`: bare holds a second. `route_ms`: milliseconds of CPU a bare route takes its server, NaN if not read."""

    floor: float
    route_ms: float = nan

    def halfway(self, other: Pace) -> Pace:
        """Between this reading and another."""
        return Pace((self.floor + other.floor) / 2, (self.route_ms + other.route_ms) / 2)


class Pacer:
    """Reads the pace, on a system and on a bare server beside it."""

    def __init__(self, stack: Stack, crew: Crew, server: psutil.Process, address: str) -> None:
        self._stack = stack
        self._crew = crew
        self._server = server
        self._address = address

    def read(self, rows: int, route: bool) -> Pace:
        """The pace of this moment, with `rows` rows in the floor's table; takes two seconds. Raises StackError."""
        return Pace(self.floor(rows), self._route_ms() if route else nan)

    def floor(self, rows: int) -> float:
        """The floor alone."""
        return floor.floor(self._stack, rows, FLOOR_SECONDS)

    def _route_ms(self) -> float:
        work = [["", "/"]] * int(EXPECTED * ROUTE_SECONDS)
        asked = self._crew.drive(
            self._address,
            "get",
            work,
            clients=CLIENTS,
            seconds=ROUTE_SECONDS,
            used=lambda: {"bare": used_by(self._server)},
        )
        return asked.cpu


@contextmanager
def pacer(stack: Stack, crew: Crew) -> Iterator[Pacer]:
    """A bare server that ends with the block, loaded as the system is. Raises StackError when it does not start."""
    (port,) = ports.claim([8099])
    address = f"{ports.HOST}:{port}"
    options = [
        "--worker-class",
        "gthread",
        "--threads",
        str(CLIENTS),
        "--keep-alive",
        "75",
        "--log-level",
        "critical",
        "--no-control-socket",
    ]
    command = [sys.executable, "-m", "gunicorn", *options, "--bind", address, f"{__name__}:app"]
    marked = {**os.environ, MARK: str(stack.run_dir.path)}  # should we be killed, the next run knows it
    process = subprocess.Popen(command, cwd=ROOT, env=marked, start_new_session=True)
    server = psutil.Process(process.pid)
    try:
        if not wait_for(lambda: answers(port, "/"), START_SECONDS):
            raise StackError("the bare server does not answer")
        yield Pacer(stack, crew, server, address)
    finally:
        kill_all(family(server))
        process.wait()
        ports.release([port])
