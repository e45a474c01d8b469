"""Idempotency keys of effects: an effect happens at most once, can be undone, and can be settled.

The key of an effect is `flow:subject:attempt:step`. The transaction of the effect also stores its answer under the key.
The primary key of `effects` therefore decides every race between a call, its duplicate, its undo and its settlement.
No lock order is necessary.

    apply   Do the effect, or return the stored answer. After an undo, refuse with STEP_VOIDED.
    undo    Reverse the effect if it happened. Otherwise store a tombstone, so that it can never happen.
    settle  Return the stored answer if the effect happened. Otherwise void the key.

`list_outcomes` reads the records for `admin reconcile`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.chassis import json_codec
from services.chassis.db import Database, DatabaseFault, Row, Transaction, UniqueViolation
from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode

Answer = dict[str, Any]

_RECORD = "INSERT INTO effects (key, outcome, answer) VALUES (%(key)s, %(outcome)s, %(answer)s)"
_RECORD_ONCE = _RECORD + " ON CONFLICT (key) DO NOTHING RETURNING key"
_FIND = "SELECT outcome, answer FROM effects WHERE key = %(key)s"
_VOID = "UPDATE effects SET outcome = 'VOIDED' WHERE key = %(key)s AND outcome = 'DONE'"
_FIND_ALL = "SELECT key, outcome FROM effects WHERE key = ANY(%(keys)s)"
# A page is a range of keys, so it needs no index by time, and each page reads at most PAGE rows.
_PAGE = """
SELECT key, outcome, created_at BETWEEN app_now() - make_interval(secs => %(max_age)s)
    AND app_now() - make_interval(secs => %(min_age)s) AS is_due
FROM effects WHERE key > %(after)s ORDER BY key LIMIT %(limit)s"""
PAGE = 1000  # effects in one page
MOST_KEYS = 50  # in one query


@dataclass(frozen=True)
class EffectQuery:
    """The effects to list: those of `keys`, or else a page of those with an age, in seconds, between the two limits.

    The page begins after the key `after`.
    """

    keys: Sequence[str] = ()
    after: str = ""
    max_age: float = 0.0
    min_age: float = 0.0


class TransientRefusal(Refused):
    """A refusal that is not stored, because a retry may succeed, for example after a lost lock."""


def apply(db: Database, key: str, effect: Callable[[Transaction], Answer]) -> Answer:
    """Run `effect` at most once under `key` and return its answer.

    If `effect` raises Refused, its writes are rolled back and the refusal is stored under the key.
    A retry returns the first answer, or raises the first refusal again. Raises Refused STEP_VOIDED after an undo.
    """

    def attempt() -> Answer:
        with db.transaction() as tx:
            answer = effect(tx)
            record(tx, key, answer)
            return answer

    return apply_recorded(db, key, attempt)


def apply_recorded(db: Database, key: str, attempt: Callable[[], Answer]) -> Answer:
    """Like `apply`, for an `attempt` whose single statement writes both the effect and its record."""
    try:
        return attempt()
    except TransientRefusal as refusal:
        return _replay_or_raise(db, key, refusal)
    except Refused as refusal:
        stored = {"code": refusal.code, "message": refusal.message, "details": refusal.details}
        if _record_once(db, key, "REFUSED", stored):
            raise
    except (UniqueViolation, DatabaseFault) as failure:  # a duplicate may have committed first
        return _replay_or_raise(db, key, failure)
    return _replay(_read_record(db, key))


def with_record(change: str) -> str:
    """Extend the statement `change`, whose returned row is the answer, by the record under the parameter `key`.

    It is for the attempts of `apply_recorded`, and takes one round trip. Without a changed row it returns no row.
    """
    return f"""
WITH changed AS ({change}),
recorded AS (
    INSERT INTO effects (key, outcome, answer) SELECT %(key)s, 'DONE', to_jsonb(changed) FROM changed RETURNING answer)
SELECT answer FROM recorded"""


def record(tx: Transaction, key: str, answer: Answer) -> None:
    """Store the answer of an effect in its transaction. Raises UniqueViolation if the key already has an outcome."""
    tx.run(_RECORD, key=key, outcome="DONE", answer=json_codec.encode(answer).decode())


def undo(db: Database, key: str, reverse: Callable[[Transaction, Answer], None]) -> None:
    """Reverse the effect under `key` if it happened, and make sure that it never happens later.

    `reverse(tx, answer)` runs only for an effect that happened, in the transaction that voids the key.
    Idempotent: concurrent undos reverse the effect once.
    """
    _record_once(db, key, "VOIDED", {})
    found = _read_record(db, key)
    if found["outcome"] == "DONE":
        _reverse(db, key, found["answer"], reverse)


def _reverse(db: Database, key: str, answer: Answer, reverse: Callable[[Transaction, Answer], None]) -> None:
    try:
        with db.transaction() as tx:
            reverse(tx, answer)
            if not void(tx, key):
                raise _Overtaken
    except (_Overtaken, UniqueViolation):  # another undo committed first, so this one is rolled back
        if _read_record(db, key)["outcome"] == "DONE":
            raise


def void(tx: Transaction, key: str) -> bool:
    """Change a DONE record to VOIDED in the transaction that reverses its effect. False if it was not DONE."""
    return tx.run(_VOID, key=key) == 1


def settle(db: Database, key: str) -> Answer | None:
    """Return the stored answer if the effect under `key` happened. Otherwise void the key and return None.

    It waits for a concurrent call that has written its record but not committed.
    """
    _record_once(db, key, "VOIDED", {})
    found = _read_record(db, key)
    return found["answer"] if found["outcome"] == "DONE" else None


def list_outcomes(db: Database, query: EffectQuery) -> tuple[dict[str, str], str]:
    """Return DONE, REFUSED or VOIDED by key, and the `after` of the next page, or "" after the last one."""
    if query.keys:
        return {row["key"]: row["outcome"] for row in db.rows(_FIND_ALL, keys=list(query.keys))}, ""
    ages = {"max_age": query.max_age, "min_age": query.min_age}
    rows = db.rows(_PAGE, after=query.after, limit=PAGE, **ages)
    is_full = len(rows) == PAGE
    return {row["key"]: row["outcome"] for row in rows if row["is_due"]}, rows[-1]["key"] if is_full else ""


class _Overtaken(Exception):
    pass


def _record_once(db: Database, key: str, outcome: str, answer: Answer) -> bool:
    """Store an outcome. Return False if the key already has one."""
    params = {"key": key, "outcome": outcome, "answer": json_codec.encode(answer).decode()}
    return db.statement(_RECORD_ONCE, **params) is not None


def _read_record(db: Database, key: str) -> Row:
    found = db.statement(_FIND, key=key)
    if found is None:
        raise LookupError(f"the record of {key} is missing, although records are never deleted")
    return found


def _replay_or_raise(db: Database, key: str, failure: Refused | UniqueViolation | DatabaseFault) -> Answer:
    found = db.statement(_FIND, key=key)
    if found is None:
        raise failure
    return _replay(found)


def _replay(found: Row) -> Answer:
    answer: Answer = found["answer"]
    if found["outcome"] == "DONE":
        return answer
    if found["outcome"] == "VOIDED":
        raise Refused(ErrorCode.STEP_VOIDED)
    raise Refused(answer["code"], answer["message"], **answer["details"])
