"""Keyed effects whose referee is a unique index."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from services.chassis import effects
from services.chassis.db import Database, Transaction, UniqueViolation
from services.chassis.effects import Answer
from services.chassis.errors import Refused

Taken = Mapping[str, Callable[[], Refused]]
"""The refusal that each index stands for."""


def apply(db: Database, key: str, effect: Callable[[Transaction], Answer], taken: Taken) -> Answer:
    """`effects.apply`, where a unique index of `taken` refuses for good: its refusal is stored under the key."""
    return _guarded(db, key, lambda: effects.apply(db, key, effect), taken)


def apply_recorded(db: Database, key: str, attempt: Callable[[], Answer], taken: Taken) -> Answer:
    """`effects.apply_recorded`, likewise."""
    return _guarded(db, key, lambda: effects.apply_recorded(db, key, attempt), taken)


def _guarded(db: Database, key: str, apply_once: Callable[[], Answer], taken: Taken) -> Answer:
    try:
        return apply_once()
    except UniqueViolation as found:
        if found.constraint not in taken:
            raise
        refusal = taken[found.constraint]()
    return effects.apply(db, key, lambda _tx: _refuse(refusal))


def _refuse(refusal: Refused) -> Answer:
    raise refusal
