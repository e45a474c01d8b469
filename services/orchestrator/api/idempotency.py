"""`Idempotency-Key` of the public API: the same key and body by the same caller gets the first answer again.

A key is bound to a *subject* (the order, transfer, scan or top-up that it is about) before any work is done. The work
is safe to repeat for its subject, so a key whose first request died is simply worked on again.

Whether a request has died is a guess: its process may be alive and late. So every claim of a key has a name of its own,
and what ends a request (keep, let go, drop) counts only while its claim stands. Whoever was taken for dead and is
not can change nothing under the key any more, and gives the answer of those who came after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from services.chassis import json_codec
from services.chassis.db import Database, LockNotGranted
from services.chassis.errors import Refused, Unknown
from services.contracts.errors import ErrorCode

MAX_KEY_CHARS = 255
KEPT_HOURS = 24
CLAIM_SECONDS = 30  # no request works for longer: after that the next asker goes on, whatever became of the first

Answer = Mapping[str, Any]
Outcome = Mapping[str, Any]  # {answer}, or {refusal: {code, message, details}}: what is kept

_WHICH = "WHERE caller = %(caller)s AND operation = %(operation)s AND key = %(key)s"

# One statement. Who is told that somebody else is at it has locked nothing: neither who is at it nor the next asker
# waits for them. `WHERE` is judged again under the row's lock, so of two who find a dead request one goes on.
_CLAIM = f"""
WITH taken_over AS (
    UPDATE idempotency_keys AS k SET owner = %(owner)s, claim = %(claim)s, claimed_at = clock_timestamp()
    {_WHICH} AND k.body_hash = %(body_hash)s AND k.answer IS NULL AND (
        k.claimed_at < clock_timestamp() - make_interval(secs => %(claim_seconds)s) OR NOT EXISTS (
            SELECT FROM heartbeats h WHERE h.instance_id = k.owner AND h.lease_until > clock_timestamp()))
    RETURNING subject),
begun AS (
    INSERT INTO idempotency_keys (caller, operation, key, body_hash, subject, owner, claim)
    SELECT %(caller)s, %(operation)s, %(key)s, %(body_hash)s, %(subject)s, %(owner)s, %(claim)s
    WHERE NOT EXISTS (SELECT FROM idempotency_keys {_WHICH})
    ON CONFLICT DO NOTHING RETURNING subject)
SELECT subject FROM taken_over UNION ALL SELECT subject FROM begun"""
_FIND = "SELECT body_hash, answer FROM idempotency_keys " + _WHICH
_IF_MINE = _WHICH + " AND claim = %(claim)s RETURNING key"
_KEEP = "UPDATE idempotency_keys SET answer = %(outcome)s, owner = NULL " + _IF_MINE
_LET_GO = "UPDATE idempotency_keys SET owner = NULL " + _IF_MINE
_DROP = "DELETE FROM idempotency_keys " + _IF_MINE
_EXPIRE = "DELETE FROM idempotency_keys WHERE created_at < (SELECT app_now()) - make_interval(hours => %(hours)s)"


@dataclass(frozen=True)
class Request:
    """Who asks what under which key; `key` None: no promise was asked for."""

    caller: UUID
    operation: str
    key: str | None
    body: bytes


class IdempotencyKeys:
    """The records of keys, beside the journal."""

    def __init__(self, db: Database, instance_id: UUID) -> None:
        self._db = db
        self._incarnation = instance_id

    def answer(
        self, request: Request, work: Callable[[UUID], Answer], again: Callable[[UUID], Answer] | None = None
    ) -> Answer:
        """What `work(subject)` answers, or what it answered first; `again(subject)` where a first request died over it.

        Raises Refused IDEMPOTENCY_KEY_REUSED for another body, REQUEST_IN_PROGRESS while another is at it. Final
        answers (2xx, 4xx) are kept for 24 hours; a failure that was undone (5xx) frees the key; an unknown result
        keeps its subject, so that the next request with the key finds it.
        """
        if request.key is None:
            return work(uuid4())
        claim, new = _claim(request), uuid4()
        subject = self._subject(claim, new)
        if subject is None:
            return _replay(self._kept(claim))
        return _replay(self._worked(claim, work if subject == new else again or work, subject))

    def forget_old(self) -> None:
        """Drop keys older than 24 hours."""
        with self._db.transaction() as tx:
            tx.run(_EXPIRE, hours=KEPT_HOURS)

    def _subject(self, claim: dict[str, Any], new: UUID) -> UUID | None:
        """What to work on under this claim, `new` for a new key; None when it has its answer, or somebody is at it."""
        which = {"subject": new, "owner": self._incarnation, "claim_seconds": CLAIM_SECONDS}
        try:
            claimed = self._db.statement(_CLAIM, **claim, **which)
        except LockNotGranted:  # the row is in the hands of whoever claims or ends the same key at this moment
            raise Refused(ErrorCode.REQUEST_IN_PROGRESS) from None
        return claimed["subject"] if claimed else None

    def _kept(self, claim: dict[str, Any], unless_gone: Outcome | None = None) -> Outcome:
        """The outcome under the key; `unless_gone` when there is no such key any more."""
        found = self._db.statement(_FIND, **claim)
        if found and found["body_hash"] != claim["body_hash"]:
            raise Refused(ErrorCode.IDEMPOTENCY_KEY_REUSED)
        kept: Outcome | None = found["answer"] if found else unless_gone
        if kept is None:
            raise Refused(ErrorCode.REQUEST_IN_PROGRESS)
        return kept

    def _worked(self, claim: dict[str, Any], work: Callable[[UUID], Answer], subject: UUID) -> Outcome:
        try:
            outcome, ending = _outcome(work, subject)
            is_mine = self._db.statement(ending, **claim, outcome=json_codec.encode(outcome).decode())
        except BaseException:
            with suppress(Unknown):
                self._db.statement(_LET_GO, **claim)
            raise
        return outcome if is_mine else self._kept(claim, unless_gone=outcome)


def _claim(request: Request) -> dict[str, Any]:
    """The names that every statement goes by: which key, for which body, and under which claim."""
    key = request.key or ""
    if not 1 <= len(key) <= MAX_KEY_CHARS or not key.isprintable():
        raise Refused(ErrorCode.VALIDATION_ERROR, f"Idempotency-Key has 1 to {MAX_KEY_CHARS} printable characters.")
    which = {"caller": request.caller, "operation": request.operation, "key": key}
    return {**which, "body_hash": hashlib.sha256(request.body).hexdigest(), "claim": uuid4()}


def _outcome(work: Callable[[UUID], Answer], subject: UUID) -> tuple[Outcome, str]:
    """What came of the work, and the statement that ends the request."""
    try:
        return {"answer": work(subject)}, _KEEP
    except Refused as refusal:
        kept = {"code": refusal.code, "message": refusal.message, "details": refusal.details}
        return {"refusal": kept}, _ending(refusal)


def _ending(refusal: Refused) -> str:
    if refusal.code is ErrorCode.REQUEST_IN_PROGRESS:
        return _LET_GO  # the subject lives: another flow has it in hand
    return _DROP if refusal.meaning.http >= 500 or refusal.code is ErrorCode.RATE_LIMITED else _KEEP


def _replay(outcome: Outcome) -> Answer:
    if "refusal" in outcome:
        refusal = outcome["refusal"]
        raise Refused(refusal["code"], refusal["message"], **refusal["details"])
    answer: Answer = outcome["answer"]
    return answer
