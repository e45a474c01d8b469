"""What the in-process tests of this suite share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.databases import Databases
from tests.saga.engine import Engine, quick_motion
from tests.saga.world import World
from tests.unit.fake_servers import running


@pytest.fixture(scope="session")
def engine(databases: Databases) -> Iterator[Engine]:
    """A world with a preparer, victims and a rescuer, on the session's database server."""
    with running("fakes.smu", SMU_API_KEY="key") as smu, quick_motion(), closing(World(databases, smu.url)) as world:
        yield Engine(world, smu.url)


@pytest.fixture(autouse=True)
def clean_journal(request: pytest.FixtureRequest) -> None:
    """An in-process test begins with an empty journal."""
    if "engine" in request.fixturenames:
        request.getfixturevalue("engine").world.forget_sagas()
