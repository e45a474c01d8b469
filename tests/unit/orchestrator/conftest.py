"""The orchestrator's database for its unit tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from services.chassis.db import Database
from services.chassis.settings import DatabaseSettings
from tests.support.databases import be_patient


@pytest.fixture
def db(database_for: Callable[[str], DatabaseSettings]) -> Iterator[Database]:
    """The orchestrator's database without sagas of other tests, which an adopter would find."""
    opened = Database(be_patient(database_for("orchestrator"), lock_seconds=1.0))
    delete_sagas(opened)
    yield opened
    delete_sagas(opened)
    opened.close()


def delete_sagas(db: Database) -> None:
    """Delete all sagas, their notices and the heartbeats."""
    with db.transaction() as tx:
        tx.run("DELETE FROM outbox")
        tx.run("DELETE FROM sagas")
        tx.run("DELETE FROM heartbeats")
