"""Fixtures of all suites: embedded databases, a broker and the whole running system."""

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
    "saga": ("saga", "mutants"),
    "chaos": ("chaos",),
    "ha": ("ha",),
    "concurrency": ("concurrency",),
    "abuse": ("abuse",),
    "e2e": ("e2e",),
    "contract": ("contract",),
    "unit": ("unit",),
}
"""Each mark (for -m) with the folders of its tests, in the order of the run.

concurrency, abuse and e2e share a system of 0.7 GiB. They are after the suites that start their own.
`make verify` runs some folders in other processes (`claims/parallel_suite.py`) and reports them last.
"""


def pytest_report_header() -> str:
    """Show whether the system runs in processes or containers, and the reason."""
    return f"stack: {CHOICE.kind} ({CHOICE.reason})"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip the modules of the other suites when only -m SUITE is given, because their imports take seconds."""
    folders = SUITES.get(config.getoption("markexpr"))
    if folders is None or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return None
    is_suite = collection_path.parent == config.rootpath / "tests" and collection_path.is_dir()
    return True if is_suite and collection_path.name not in folders else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that need no running system first in each suite, so that results appear within seconds.

    Fail if a test lacks the mark of its folder, because no suite would run it.
    """
    order = [folder for folders in SUITES.values() for folder in folders]
    items.sort(key=lambda item: (order.index(item.nodeid.split("/")[1]), "stack" in getattr(item, "fixturenames", ())))
    unmarked = [item.nodeid for item in items if not any(item.iter_markers(suite_of(item.nodeid)))]
    if unmarked:
        raise pytest.UsageError(f"without its folder's mark: {unmarked[0]}")


def suite_of(nodeid: str) -> str:
    """The mark that a test in this folder needs."""
    folder = nodeid.split("/")[1]
    return next(suite for suite, folders in SUITES.items() if folder in folders)


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """The embedded PostgreSQL of this session, started on first use."""
    server = Databases(os.environ.get(SHARED_POSTGRES))
    yield server
    server.close()


@pytest.fixture(scope="session")
def database_for(databases: Databases) -> Callable[[str], DatabaseSettings]:
    """`database_for("user")` returns the settings of that service's database, after its schema and seed have run."""
    return databases.database_for


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The RabbitMQ of this session, started on first use."""
    server = Broker()
    yield server
    server.close()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole system, started on first use. A test that stops a process must start it again."""
    yield from running(tmp_path_factory.mktemp("stack"))


@pytest.fixture(scope="session")
def seats() -> SeatPool:
    """`seats.take()` returns a seat of event 2 that no other test of this session uses."""
    return SeatPool()
