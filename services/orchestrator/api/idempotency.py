"""`Idempotency-Key` of the public API: a retry with the same key, body and caller gets the first response again.

Two bodies are the same if they decode to the same value. Spacing, key order and the spelling of numbers do not count.

A key is bound to a *subject* (its order, transfer, scan or top-up) before any work. The work is safe to repeat for its
subject, so a retry continues the work of a request that died.

A timeout does not prove that a request is dead. Each claim of a key therefore has an id, and only the current claim
can store the outcome, release the key or delete it. A request that lost its claim returns the stored outcome.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any
from uuid import UUID, uuid4

from prometheus_client import Gauge

from services.chassis import json_codec
from services.chassis.db import Database, LockNotGranted
from services.chassis.errors import NotSent, Refused, Unknown
from services.contracts.errors import ErrorCode
from services.orchestrator.saga.journal import CLOCK, MAY_JUDGE_LEASES, make_id

MAX_KEY_CHARS = 255
KEPT_HOURS = 24
CLAIM_SECONDS = 30  # no request works for longer, so after that the next retry continues the work
RELEASE_SECONDS = 0.25  # between two tries to release abandoned keys
_BATCH = 1000  # expired keys that one transaction deletes
ABANDONED = Gauge("idempotency_keys_abandoned", "Keys that no request works on and that are not released yet")

ResponseData = Mapping[str, Any]
Outcome = Mapping[str, Any]  # as stored: {answer} or {refusal: {code, message, details}}

_WHICH = "WHERE caller = %(caller)s AND operation = %(operation)s AND key = %(key)s"
# The result of a saga is in the journal, so its key does not store it again. The operation has the name of the flow.
_RESULT = """(
    SELECT jsonb_build_object('answer', result) FROM sagas
    WHERE flow = k.operation AND subject = k.subject AND status = 'DONE' AND NOT result ? 'resolved_by_hand')"""

# A request that gets REQUEST_IN_PROGRESS takes no lock, so it delays neither the running request nor the next retry.
# PostgreSQL checks `WHERE` again under the row lock, so only one of two retries takes over from a dead request.
_CLAIM = f"""
WITH {CLOCK},
taken_over AS (
    UPDATE idempotency_keys AS k SET owner = %(owner)s, claim = %(claim)s, claimed_at = clock_timestamp() FROM clock
    {_WHICH} AND k.body_hash = %(body_hash)s AND k.answer IS NULL AND NOT EXISTS {_RESULT} AND (
        k.owner IS NULL OR k.claimed_at < clock.now - make_interval(secs => %(claim_seconds)s)
        OR {MAY_JUDGE_LEASES} AND NOT EXISTS (
            SELECT FROM heartbeats h WHERE h.instance_id = k.owner AND h.lease_until > clock.now))
    RETURNING subject),
begun AS (
    INSERT INTO idempotency_keys (caller, operation, key, body_hash, subject, owner, claim)
    SELECT %(caller)s, %(operation)s, %(key)s, %(body_hash)s, %(subject)s, %(owner)s, %(claim)s
    WHERE NOT EXISTS (SELECT FROM idempotency_keys {_WHICH})
    ON CONFLICT DO NOTHING RETURNING subject)
SELECT subject FROM taken_over UNION ALL SELECT subject FROM begun"""
_FIND = f"SELECT body_hash, coalesce(answer, {_RESULT}) AS answer FROM idempotency_keys AS k {_WHICH}"
_IF_CURRENT = _WHICH + " AND claim = %(claim)s RETURNING key"
_STORE = "UPDATE idempotency_keys SET answer = %(outcome)s, owner = NULL " + _IF_CURRENT
_RELEASE = "UPDATE idempotency_keys SET owner = NULL " + _IF_CURRENT
_DELETE = "DELETE FROM idempotency_keys " + _IF_CURRENT
_EXPIRE = """
DELETE FROM idempotency_keys WHERE (caller, operation, key) IN (
    SELECT caller, operation, key FROM idempotency_keys
    WHERE created_at < (SELECT app_now()) - make_interval(hours => %(hours)s)
    ORDER BY created_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED)"""


@dataclass(frozen=True)
class KeyedRequest:
    """A request with its Idempotency-Key and its decoded body. If `key` is None, each request is new.

    `is_saga` means that the work runs the saga `operation` and returns its result, which the journal has.
    """

    caller: UUID
    operation: str
    key: str | None
    body: Any
    is_saga: bool = False


class IdempotencyKeys:
    """The stored keys, in the same database as the journal."""

    def __init__(self, db: Database, instance_id: UUID) -> None:
        self._db = db
        self._instance_id = instance_id
        self._lock = Lock()
        self._abandoned: dict[UUID, tuple[dict[str, Any], float]] = {}  # claim id → the claim, when it may be forgotten

    def run(
        self,
        request: KeyedRequest,
        work: Callable[[UUID], ResponseData],
        resume: Callable[[UUID], ResponseData] | None = None,
    ) -> ResponseData:
        """Return the result of `work(subject)`, or the stored outcome of the key's first request.

        `resume(subject)` runs instead of `work` when the key's first request died, because its effects may exist.
        Raises Refused IDEMPOTENCY_KEY_REUSED for another body. Raises Refused REQUEST_IN_PROGRESS while another
        request works under the key. Final outcomes (2xx, 4xx) can be replayed for 24 hours, from the key or from the
        journal. A failure that was undone (5xx) deletes the key. After an unknown result the key keeps its subject for
        the next retry.
        """
        if request.key is None:
            return work(make_id())
        claim, new = _make_claim(request), make_id()
        subject = self._claim_subject(claim, new)
        if subject is None:
            return _replay(self._read_outcome(claim))
        chosen = work if subject == new else resume or work
        return _replay(self._work_and_store(claim, chosen, subject, request.is_saga))

    def delete_expired(self) -> None:
        """Delete keys older than 24 hours, in batches that no statement timeout ends."""
        deleted = _BATCH
        while deleted == _BATCH:
            with self._db.transaction() as tx:
                deleted = tx.run(_EXPIRE, hours=KEPT_HOURS, batch=_BATCH)

    def release_abandoned(self) -> None:
        """Release the keys whose release failed before, so that the next retry continues the work.

        Raises Unknown while the database does not answer. A claim that may still arrive late is released again.
        """
        with self._lock:
            abandoned = dict(self._abandoned)
        for claim_id, (claim, forget_at) in abandoned.items():
            if time.monotonic() > forget_at or self._db.statement(_RELEASE, **claim):
                with self._lock:
                    self._abandoned.pop(claim_id, None)
                    ABANDONED.set(len(self._abandoned))

    def _abandon(self, claim: dict[str, Any]) -> None:
        with self._lock:
            self._abandoned[claim["claim"]] = claim, time.monotonic() + CLAIM_SECONDS
            ABANDONED.set(len(self._abandoned))

    def _claim_subject(self, claim: dict[str, Any], new: UUID) -> UUID | None:
        """Claim the key and return its subject, `new` for a new key.

        Returns None when the key has its outcome, or when another request works under it.
        """
        which = {"subject": new, "owner": self._instance_id, "claim_seconds": CLAIM_SECONDS}
        try:
            claimed = self._db.statement(_CLAIM, **claim, **which)
        except LockNotGranted:  # another request claims or ends the same key at this moment
            raise Refused(ErrorCode.REQUEST_IN_PROGRESS) from None
        except NotSent:
            raise
        except Unknown:  # the claim may have been stored, and no request works on it
            self._abandon(claim)
            raise
        return claimed["subject"] if claimed else None

    def _read_outcome(self, claim: dict[str, Any], if_deleted: Outcome | None = None) -> Outcome:
        """Return the stored outcome of the key, or `if_deleted` when the key no longer exists."""
        found = self._db.statement(_FIND, **claim)
        if found and found["body_hash"] != claim["body_hash"]:
            raise Refused(ErrorCode.IDEMPOTENCY_KEY_REUSED)
        stored: Outcome | None = found["answer"] if found else if_deleted
        if stored is None:
            raise Refused(ErrorCode.REQUEST_IN_PROGRESS)
        return stored

    def _work_and_store(
        self, claim: dict[str, Any], work: Callable[[UUID], ResponseData], subject: UUID, is_saga: bool
    ) -> Outcome:
        try:
            outcome, ending = _run_work(work, subject)
            if is_saga and "answer" in outcome:
                return outcome
            is_current = self._db.statement(ending, **claim, outcome=json_codec.encode(outcome).decode())
        except BaseException:
            self._release(claim)
            raise
        return outcome if is_current else self._read_outcome(claim, if_deleted=outcome)

    def _release(self, claim: dict[str, Any]) -> None:
        try:
            self._db.statement(_RELEASE, **claim)
        except Unknown:
            self._abandon(claim)


def _make_claim(request: KeyedRequest) -> dict[str, Any]:
    """Return the parameters of every statement: the key, the hash of the body and a new claim id."""
    key = request.key or ""
    if not 1 <= len(key) <= MAX_KEY_CHARS or not key.isprintable():
        raise Refused(
            ErrorCode.VALIDATION_ERROR, f"Send an Idempotency-Key of 1 to {MAX_KEY_CHARS} printable characters."
        )
    which = {"caller": request.caller, "operation": request.operation, "key": key}
    body_hash = hashlib.sha256(json_codec.encode_canonically(request.body)).hexdigest()
    return {**which, "body_hash": body_hash, "claim": uuid4()}


def _run_work(work: Callable[[UUID], ResponseData], subject: UUID) -> tuple[Outcome, str]:
    """Run the work and return its outcome with the statement that ends the request."""
    try:
        return {"answer": work(subject)}, _STORE
    except Refused as refusal:
        stored = {"code": refusal.code, "message": refusal.message, "details": refusal.details}
        return {"refusal": stored}, _choose_ending(refusal, subject)


def _choose_ending(refusal: Refused, subject: UUID) -> str:
    if refusal.code == ErrorCode.REQUEST_IN_PROGRESS:
        # Another flow works on the subject, so it exists. If the refusal names another order, the own one has ended.
        return _RELEASE if refusal.details.get("order_id", str(subject)) == str(subject) else _DELETE
    return _DELETE if refusal.meaning.http >= 500 or refusal.code is ErrorCode.RATE_LIMITED else _STORE


def _replay(outcome: Outcome) -> ResponseData:
    if "refusal" in outcome:
        refusal = outcome["refusal"]
        raise Refused(refusal["code"], refusal["message"], **refusal["details"])
    data: ResponseData = outcome["answer"]
    return data
