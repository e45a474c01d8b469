"""Versions of seat maps after the restore of seats_db: a client's `If-None-Match` must not match another map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from uuid import UUID, uuid4

import pytest

from services.chassis.db import Database
from services.inventory.seat_maps import SeatMaps
from tests.support.databases import Databases

pytestmark = pytest.mark.unit

NEW_SEATS = """
INSERT INTO seats (seat_id, event_id, row_number, seat_number, category)
SELECT gen_random_uuid(), %(event_id)s, 'R', n, 'CAT1' FROM generate_series(1, 4) AS n"""
HOLD = """
UPDATE seats SET status = 'HELD', held_by_user_id = gen_random_uuid(), hold_id = gen_random_uuid(),
    held_until = app_now() + interval '5 minutes', updated_at = statement_timestamp()
WHERE event_id = %(event_id)s AND seat_number = %(number)s"""


@pytest.fixture
def databases() -> Iterator[Databases]:
    """A server of this test alone, because a restore ends all connections."""
    with closing(Databases()) as server:
        yield server


def test_map_after_a_restore_has_another_version(databases: Databases) -> None:
    event_id = uuid4()
    with closing(Database(databases.database_for("inventory"))) as db:
        maps = SeatMaps(db)
        _run(db, NEW_SEATS, event_id)
        _run(db, HOLD, event_id, 1)
        backed_up = maps.version(event_id)
        db.close()
        databases.back_up("inventory")
        _run(db, HOLD, event_id, 2)
        lost = maps.version(event_id)
        assert maps.counts([event_id]) == {event_id: (4, 2)}
        db.close()
        databases.restore("inventory")
        assert maps.version(event_id).startswith(backed_up.split("-")[0])
        assert maps.counts([event_id]) == {event_id: (4, 3)}, "a cached count must not outlive its seats"
        _run(db, HOLD, event_id, 3)
        assert maps.version(event_id) not in (backed_up, lost)
        assert maps.counts([event_id]) == {event_id: (4, 2)}


def _run(db: Database, sql: str, event_id: UUID, number: int = 0) -> None:
    with db.transaction() as tx:
        tx.run(sql, event_id=event_id, number=number)
