"""Keyed effects whose referee is a unique index."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from services.chassis import effects
from services.chassis.db import AlreadyThere, Database, Transaction
from services.chassis.effects import Answer
from services.chassis.errors import Refused


def apply(
    db: Database, key: str, effect: Callable[[Transaction], Answer], taken: Mapping[str, Callable[[], Refused]]
) -> Answer:
    """`effects.apply`, where a unique index of `taken` refuses for good: its refusal is stored under the key."""
    try:
        return effects.apply(db, key, effect)
    except AlreadyThere as found:
        if found.constraint not in taken:
            raise
        refusal = taken[found.constraint]()
    return effects.apply(db, key, lambda _tx: _refuse(refusal))


def _refuse(refusal: Refused) -> Answer:
    raise refusal
