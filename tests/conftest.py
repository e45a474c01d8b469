"""What every suite shares: the embedded databases, a broker, and the whole running system."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from harness import Stack
from services.chassis.settings import DatabaseSettings
from tests.brokers import Broker
from tests.databases import LENT, Databases
from tests.stack import CHOICE, Seats, running

pytest_plugins = ["tests.claims.plugin"]


def pytest_report_header() -> str:
    """Where the system runs, and why there."""
    return f"stack: {CHOICE.kind} ({CHOICE.reason})"


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """The embedded PostgreSQL of this session, started when the first test asks for it."""
    server = Databases(os.environ.get(LENT))
    yield server
    server.close()


@pytest.fixture(scope="session")
def database_for(databases: Databases) -> Callable[[str], DatabaseSettings]:
    """`database_for("user")`: settings of that service's database, with its schema and seed in place."""
    return databases.database_for


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The RabbitMQ of this session, started when the first test asks for it."""
    server = Broker()
    yield server
    server.close()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole system, started when the first test asks for it. Whoever kills or restarts a part puts it back."""
    yield from running(tmp_path_factory.mktemp("stack"))


@pytest.fixture(scope="session")
def seats() -> Seats:
    """`seats.take()`: a seat of event 2 that is nobody else's in this session."""
    return Seats()
