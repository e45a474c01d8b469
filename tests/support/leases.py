"""Leases of orchestrators in tests that cannot wait until a process has renewed its lease for some time."""

from __future__ import annotations

from services.chassis.db import Database
from services.orchestrator.saga.journal import Journal


def beat_as_if_running(db: Database, journal: Journal) -> None:
    """Give a process a lease that no slow machine ends, as if it had renewed without a gap for a long time."""
    journal.beat()
    with db.transaction() as tx:
        sql = """UPDATE heartbeats SET unbroken_since = '-infinity', lease_until = clock_timestamp() + interval '1 hour'
            WHERE instance_id = %(instance_id)s"""
        tx.run(sql, instance_id=journal.instance_id)
