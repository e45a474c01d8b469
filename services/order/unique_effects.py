"""Keyed effects that a unique index may refuse as a duplicate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from services.chassis import effects
from services.chassis.db import Database, Transaction, UniqueViolation
from services.chassis.effects import Answer
from services.chassis.errors import Refused

DuplicateRefusals = Mapping[str, Callable[[], Refused]]
"""Index name → the refusal of a row that this index rejects."""


def apply_or_refuse_duplicate(
    db: Database, key: str, effect: Callable[[Transaction], Answer], refusals: DuplicateRefusals
) -> Answer:
    """Call `effects.apply`. If an index of `refusals` rejects the row, store its refusal under `key` and raise it."""
    return _refuse_duplicate(db, key, lambda: effects.apply(db, key, effect), refusals)


def apply_recorded_or_refuse_duplicate(
    db: Database, key: str, attempt: Callable[[], Answer], refusals: DuplicateRefusals
) -> Answer:
    """Call `effects.apply_recorded`, with the same refusals as `apply_or_refuse_duplicate`."""
    return _refuse_duplicate(db, key, lambda: effects.apply_recorded(db, key, attempt), refusals)


def _refuse_duplicate(db: Database, key: str, apply: Callable[[], Answer], refusals: DuplicateRefusals) -> Answer:
    try:
        return apply()
    except UniqueViolation as duplicate:
        if duplicate.constraint not in refusals:
            raise
        refusal = refusals[duplicate.constraint]()
    return effects.apply(db, key, lambda _tx: _raise(refusal))


def _raise(refusal: Refused) -> Answer:
    raise refusal
