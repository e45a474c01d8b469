"""Leases of orchestrators in tests that cannot wait until a process has renewed its lease for some time."""

from __future__ import annotations

from services.chassis.db import Database
from services.orchestrator.saga.journal import Journal


def beat_as_if_running(db: Database, journal: Journal) -> None:
    """Renew the lease of a process, as if it had done so without a gap for a long time."""
    journal.beat()
    with db.transaction() as tx:
        sql = "UPDATE heartbeats SET unbroken_since = '-infinity' WHERE instance_id = %(instance_id)s"
        tx.run(sql, instance_id=journal.instance_id)
