"""Releases the holds that no message came for (D3 of the decisions): the database's `held_until` is the truth."""

from __future__ import annotations

import logging

from services.chassis.db import Database
from services.inventory import metrics
from services.inventory.store import holds

logger = logging.getLogger(__name__)

BATCH = 200


class Sweeper:
    """One tick is one batch. `grace_seconds` leaves a wake-up message the time to come first."""

    def __init__(self, db: Database, grace_seconds: float) -> None:
        self._db = db
        self._grace_seconds = grace_seconds

    def tick(self) -> bool:
        """Release one batch; True when there may be more. Raises Unknown when the database does not answer."""
        released = holds.sweep(self._db, BATCH, self._grace_seconds)
        for hold in released:
            logger.warning("Auto-released seat %s after TTL expiry: hold %s (swept)", hold["seat_id"], hold["hold_id"])
        metrics.RELEASES.labels("sweeper").inc(len(released))
        return len(released) == BATCH
