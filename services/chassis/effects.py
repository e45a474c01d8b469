"""Keys: every effect happens at most once, can be undone before it arrives, and can be settled.

An effect's key is `flow:subject:attempt:step`. The answer is stored under the key in the effect's own transaction,
so the primary key of `effects` is the one arbiter of every race between a call, its duplicate, its undo and its
settling; no lock order has to be remembered. (Sagas: idempotency, tombstones and the settling of a pivot.)

    apply   do it, or repeat the stored answer. Voided: refused with STEP_VOIDED
    undo    reverse it if it happened; if it has not arrived yet, leave a tombstone so that it never can
    settle  DONE with the stored answer, or VOIDED from now on
"""

from __future__ import annotations

from collections.abc import Callable
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


class TransientRefusal(Refused):
    """A refusal that says nothing about the future (a lock lost at once), so it is not stored."""


def apply(db: Database, key: str, effect: Callable[[Transaction], Answer]) -> Answer:
    """Run `effect` at most once under `key`, however often it is asked, and return its answer.

    `effect` raises Refused before or after it has written: its writes are rolled back, and the refusal is what
    the key will answer from then on. Under retry the first answer is given again, a refusal too.
    """

    def attempt() -> Answer:
        with db.transaction() as tx:
            answer = effect(tx)
            record(tx, key, answer)
            return answer

    return apply_recorded(db, key, attempt)


def apply_recorded(db: Database, key: str, attempt: Callable[[], Answer]) -> Answer:
    """`apply` for an `attempt` that writes its own record: one statement that holds both effect and record.

    Raises and promises what `apply` does; the primary key of `effects` tells a twin apart here too.
    """
    try:
        return attempt()
    except TransientRefusal as refusal:
        return _already(db, key, refusal)
    except Refused as refusal:
        kept = {"code": refusal.code, "message": refusal.message, "details": refusal.details}
        if _record_once(db, key, "REFUSED", kept):
            raise
    except (
        UniqueViolation,
        DatabaseFault,
    ) as twin:  # it committed first; redoing its effect met the key, or a constraint
        return _already(db, key, twin)
    return _replay(_recorded(db, key))


def with_record(change: str) -> str:
    """The statement `change`, which returns the row that is the answer, together with its record under `key`.

    One round trip, one plan: for the attempts of `apply_recorded`. It returns no row when `change` changed none.
    """
    return f"""
WITH changed AS ({change}),
recorded AS (
    INSERT INTO effects (key, outcome, answer) SELECT %(key)s, 'DONE', to_jsonb(changed) FROM changed RETURNING answer)
SELECT answer FROM recorded"""


def record(tx: Transaction, key: str, answer: Answer) -> None:
    """Store a done effect's answer in the transaction that did it. Raises UniqueViolation when the key is taken."""
    tx.run(_RECORD, key=key, outcome="DONE", answer=json_codec.encode(answer).decode())


def undo(db: Database, key: str, reverse: Callable[[Transaction, Answer], None]) -> None:
    """Make sure that the effect under `key` has not happened and never will.

    `reverse(tx, answer)` runs only if it had happened, in the transaction that voids the key. Idempotent: two
    undos at once reverse once.
    """
    _record_once(db, key, "VOIDED", {})
    found = _recorded(db, key)
    if found["outcome"] == "DONE":
        _reverse(db, key, found["answer"], reverse)


def _reverse(db: Database, key: str, answer: Answer, reverse: Callable[[Transaction, Answer], None]) -> None:
    try:
        with db.transaction() as tx:
            reverse(tx, answer)
            if not void(tx, key):
                raise _Overtaken
    except (_Overtaken, UniqueViolation):  # another undo committed first; ours is rolled back
        if _recorded(db, key)["outcome"] == "DONE":
            raise


def void(tx: Transaction, key: str) -> bool:
    """Turn a DONE record into VOIDED within a transaction that takes its effect back; False when it was not DONE."""
    return tx.run(_VOID, key=key) == 1


def settle(db: Database, key: str) -> Answer | None:
    """The stored answer if the effect under `key` happened; else None, and from now on it never can.

    Waits for a call in flight that has written its record and not yet committed.
    """
    _record_once(db, key, "VOIDED", {})
    found = _recorded(db, key)
    return found["answer"] if found["outcome"] == "DONE" else None


class _Overtaken(Exception):
    pass


def _record_once(db: Database, key: str, outcome: str, answer: Answer) -> bool:
    """Record, unless the key has an outcome already (then False)."""
    params = {"key": key, "outcome": outcome, "answer": json_codec.encode(answer).decode()}
    return db.statement(_RECORD_ONCE, **params) is not None


def _recorded(db: Database, key: str) -> Row:
    found = db.statement(_FIND, key=key)
    if found is None:
        raise LookupError(f"the record of {key} is gone: records are never deleted")
    return found


def _already(db: Database, key: str, failure: Refused | UniqueViolation | DatabaseFault) -> Answer:
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
