"""`Idempotency-Key` of the public API: the same key and body by the same caller gets the first answer again.

A key is bound to a *subject* (the order, transfer, scan or top-up that it is about) before any work is done. The work
is safe to repeat for its subject, so a key whose first request died is simply worked on again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from services.chassis import wire
from services.chassis.db import Database, Row
from services.chassis.errors import Refused, Unknown
from services.contracts.errors import ErrorCode

MAX_KEY_CHARS = 255
KEPT_HOURS = 24
CLAIM_SECONDS = 30  # no request works for longer: after that the next asker goes on, whatever became of the first

NOT_FINAL = (ErrorCode.REQUEST_IN_PROGRESS, ErrorCode.RATE_LIMITED)

Answer = Mapping[str, Any]

_CLAIM = """
INSERT INTO idempotency_keys AS k (caller, operation, key, body_hash, subject, owner)
VALUES (%(caller)s, %(operation)s, %(key)s, %(body_hash)s, %(subject)s, %(owner)s)
ON CONFLICT (caller, operation, key) DO UPDATE SET owner = excluded.owner, claimed_at = excluded.claimed_at
WHERE k.body_hash = excluded.body_hash AND k.answer IS NULL AND (
    k.claimed_at < clock_timestamp() - make_interval(secs => %(claim_seconds)s) OR NOT EXISTS (
        SELECT FROM heartbeats h WHERE h.incarnation = k.owner AND h.lease_until > clock_timestamp()))
RETURNING subject"""
_WHICH = " WHERE caller = %(caller)s AND operation = %(operation)s AND key = %(key)s"
_FIND = "SELECT body_hash, answer FROM idempotency_keys" + _WHICH
_KEEP = "UPDATE idempotency_keys SET answer = %(answer)s, owner = NULL" + _WHICH
_LET_GO = "UPDATE idempotency_keys SET owner = NULL" + _WHICH
_DROP = "DELETE FROM idempotency_keys" + _WHICH
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

    def __init__(self, db: Database, incarnation: UUID) -> None:
        self._db = db
        self._incarnation = incarnation

    def answer(self, request: Request, work: Callable[[UUID], Answer]) -> Answer:
        """What `work(subject)` answers, or what it answered first.

        Raises Refused IDEMPOTENCY_KEY_REUSED for another body, REQUEST_IN_PROGRESS while the first runs. Final
        answers (2xx, 4xx) are kept for 24 hours; a failure that was undone (5xx) frees the key; an unknown result
        keeps its subject, so that the next request with the key finds it.
        """
        if request.key is None:
            return work(uuid4())
        which = _which(request)
        subject = self._claim(request, which)
        return self._worked(which, work, subject) if isinstance(subject, UUID) else _replay(subject)

    def forget_old(self) -> None:
        """Drop keys older than 24 hours."""
        with self._db.transaction() as tx:
            tx.run(_EXPIRE, hours=KEPT_HOURS)

    def _claim(self, request: Request, which: dict[str, Any]) -> UUID | Answer:
        digest = hashlib.sha256(request.body).hexdigest()
        with self._db.transaction() as tx:
            claimed = tx.one(
                _CLAIM, **which, body_hash=digest, subject=uuid4(), owner=self._incarnation, claim_seconds=CLAIM_SECONDS
            )
            found = claimed or tx.one(_FIND, **which)
        if claimed:
            return UUID(str(claimed["subject"]))
        return _kept(found, digest)

    def _worked(self, which: dict[str, Any], work: Callable[[UUID], Answer], subject: UUID) -> Answer:
        try:
            answer = work(subject)
        except Refused as refusal:
            self._close(which, refusal)
            raise
        except BaseException:
            with suppress(Unknown):
                self._run(_LET_GO, which)
            raise
        self._run(_KEEP, which, answer=wire.encode({"answer": answer}).decode())
        return answer

    def _close(self, which: dict[str, Any], refusal: Refused) -> None:
        if refusal.meaning.http >= 500 or refusal.code in NOT_FINAL:
            self._run(_DROP, which)
            return
        kept = {"code": refusal.code, "message": refusal.message, "details": refusal.details}
        self._run(_KEEP, which, answer=wire.encode({"refusal": kept}).decode())

    def _run(self, sql: str, which: dict[str, Any], **more: Any) -> None:
        with self._db.transaction() as tx:
            tx.run(sql, **which, **more)


def _which(request: Request) -> dict[str, Any]:
    key = request.key or ""
    if not 1 <= len(key) <= MAX_KEY_CHARS or not key.isprintable():
        raise Refused(ErrorCode.VALIDATION_ERROR, f"Idempotency-Key has 1 to {MAX_KEY_CHARS} printable characters.")
    return {"caller": request.caller, "operation": request.operation, "key": key}


def _kept(found: Row | None, digest: str) -> Answer:
    if found is not None and found["body_hash"] != digest:
        raise Refused(ErrorCode.IDEMPOTENCY_KEY_REUSED)
    if found is None or found["answer"] is None:
        raise Refused(ErrorCode.REQUEST_IN_PROGRESS)
    kept: Answer = found["answer"]
    return kept


def _replay(kept: Answer) -> Answer:
    if "refusal" in kept:
        refusal = kept["refusal"]
        raise Refused(refusal["code"], refusal["message"], **refusal["details"])
    answer: Answer = kept["answer"]
    return answer
