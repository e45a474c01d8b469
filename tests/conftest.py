"""What every suite shares: the embedded databases and a broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from services.chassis.settings import DatabaseSettings
from tests.brokers import Broker
from tests.databases import Databases


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """The embedded PostgreSQL of this session, started when the first test asks for it."""
    server = Databases()
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
