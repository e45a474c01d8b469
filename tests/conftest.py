"""What every suite shares: the embedded databases, a broker, and the whole running system."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import Stack
from services.chassis.settings import DatabaseSettings
from tests.support.brokers import Broker
from tests.support.databases import SHARED_POSTGRES, Databases
from tests.support.running_stack import CHOICE, SeatPool, running

pytest_plugins = ["tests.claims.plugin", "tests.claims.parallel_suite"]
SUITES = {
    "contract": ("contract",),
    "saga": ("saga", "mutants"),
    "concurrency": ("concurrency",),
    "e2e": ("e2e",),
    "unit": ("unit",),
}
"""What to say after -m, and the folders with the tests that bear this mark, in the order in which they are run.

The system that concurrency and e2e share starts late: beside those of contract and saga it would take 0.7 GiB more.
"""


def pytest_report_header() -> str:
    """Where the system runs, and why there."""
    return f"stack: {CHOICE.kind} ({CHOICE.reason})"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With -m SUITE alone the other suites' modules are not even read: that takes longer than many a suite's start."""
    folders = SUITES.get(config.getoption("markexpr"))
    if folders is None or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return None
    is_suite = collection_path.parent == config.rootpath / "tests" and collection_path.is_dir()
    return True if is_suite and collection_path.name not in folders else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of each suite those first that need no running system and no long preparation: a first result within seconds.

    A test that does not bear its folder's mark would run in no suite.
    """
    order = [folder for folders in SUITES.values() for folder in folders]
    items.sort(key=lambda item: (order.index(item.nodeid.split("/")[1]), "stack" in getattr(item, "fixturenames", ())))
    lost = [item.nodeid for item in items if not any(item.iter_markers(suite_of(item.nodeid)))]
    if lost:
        raise pytest.UsageError(f"without its folder's mark: {lost[0]}")


def suite_of(nodeid: str) -> str:
    """The mark that a test has to bear."""
    folder = nodeid.split("/")[1]
    return next(suite for suite, folders in SUITES.items() if folder in folders)


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """The embedded PostgreSQL of this session, started when the first test asks for it."""
    server = Databases(os.environ.get(SHARED_POSTGRES))
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
def seats() -> SeatPool:
    """`seats.take()`: a seat of event 2 that is nobody else's in this session."""
    return SeatPool()
