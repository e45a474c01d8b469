"""What the in-process tests of this suite share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.saga.in_process.engine import Engine, quick_motion
from tests.saga.in_process.in_process_system import InProcessSystem
from tests.support.brokers import Broker
from tests.support.databases import Databases


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --cell, which replays one cell of the fault matrix."""
    parser.addoption("--cell", metavar="'FLOW | EDGE | FAULT'", help="run this one cell of the fault matrix")


@pytest.fixture(scope="session")
def engine(databases: Databases) -> Iterator[Engine]:
    """A system with a preparer, victims and a rescuer, on the session's database server."""
    with closing(InProcessSystem(databases)) as system, quick_motion(Engine(system)) as engine:
        yield engine


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """The matrix's own RabbitMQ, gone with it: for the rest of a session it would take 100 MiB."""
    with closing(Broker()) as server:
        yield server


@pytest.fixture(autouse=True)
def clean_journal(request: pytest.FixtureRequest) -> None:
    """An in-process test begins with an empty journal."""
    if "engine" in request.fixturenames:
        request.getfixturevalue("engine").system.forget_sagas()
