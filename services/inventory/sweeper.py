"""Releases expired holds without a wake-up message (D3). `held_until` in the database decides."""

from __future__ import annotations

import logging

from services.chassis.db import Database
from services.inventory import metrics
from services.inventory.store import holds

logger = logging.getLogger(__name__)

BATCH = 200


class Sweeper:
    """Releases one batch per tick. Within `grace_seconds` after the expiry, the wake-up message comes first."""

    def __init__(self, db: Database, grace_seconds: float) -> None:
        self._db = db
        self._grace_seconds = grace_seconds

    def tick(self) -> bool:
        """Release one batch. True if there may be more. Raises Unknown if the database does not answer."""
        released = holds.sweep(self._db, BATCH, self._grace_seconds)
        for hold in released:
            logger.warning("Auto-released seat %s after TTL expiry: hold %s (swept)", hold["seat_id"], hold["hold_id"])
        metrics.RELEASES.labels("sweeper").inc(len(released))
        return len(released) == BATCH
