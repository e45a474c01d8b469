"""Fixtures of the in-process tests, and the options --cell and --schedule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.saga.in_process.engine import Engine, fast_retries
from tests.saga.in_process.in_process_system import InProcessSystem
from tests.support.brokers import Broker
from tests.support.databases import Databases


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --cell, which runs one cell of the fault matrix, and --schedule, which runs one schedule of a pair."""
    parser.addoption("--cell", metavar="'FLOW | EDGE | FAULT'", help="run this one cell of the fault matrix")
    parser.addoption("--schedule", metavar="'PAIR: SCHEDULE'", help="run this one schedule of a pair of flows")


@pytest.fixture(scope="session")
def engine(databases: Databases) -> Iterator[Engine]:
    """The in-process system on the PostgreSQL of the session."""
    with closing(InProcessSystem(databases)) as system, fast_retries(Engine(system)) as engine:
        yield engine


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A RabbitMQ for the matrix, stopped after it, because it takes 100 MiB."""
    with closing(Broker()) as server:
        yield server


@pytest.fixture(autouse=True)
def clean_journal(request: pytest.FixtureRequest) -> None:
    """Empty the journal before each in-process test."""
    if "engine" in request.fixturenames:
        request.getfixturevalue("engine").system.delete_sagas()
