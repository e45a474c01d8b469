"""Idempotency keys by Stripe's rules.

The first response of an execution is returned for 24 hours, even a 500 or a decline. A call that was refused before
its execution is not stored.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fakes.control import FakeState
from fakes.stripe.errors import Json, StripeError
from fakes.stripe.events import store_bounded

LIFE_SECONDS = 24 * 3600


@dataclass(frozen=True)
class StoredResponse:
    status: int
    body: Any
    original: str | None = None  # the id of the first request, if this is a replay


def fingerprint(method: str, path: str, params: Json) -> str:
    text = json.dumps([method, path, params], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class IdempotencyKeys:
    def __init__(self, state: FakeState) -> None:
        self._state = state
        self._running: set[str] = set()

    def run(self, key: str, call_print: str, request_id: str, work: Callable[[], StoredResponse]) -> StoredResponse:
        """Run `work` once per key. A StripeError from `work` is not stored.

        Raises a 409 while the first call runs, and a 400 for other parameters under the same key.
        """
        with self._state.lock:
            stored = self._find(key)
            if stored is not None:
                return _replay(key, stored, call_print)
            if key in self._running:
                raise _in_use(key)
            self._running.add(key)
        try:
            answer = work()
            with self._state.lock:
                self._store(key, call_print, request_id, answer)
            return answer
        finally:
            self._running.discard(key)

    def _find(self, key: str) -> Json | None:
        stored: Json | None = self._state.store["keys"].get(key)
        return stored if stored and self._state.clock.now() < stored["at"] + LIFE_SECONDS else None

    def _store(self, key: str, call_print: str, request_id: str, answer: StoredResponse) -> None:
        stored = {"print": call_print, "status": answer.status, "body": answer.body, "request": request_id}
        self._state.store["keys"].pop(key, None)  # a key that is used again after a day is the newest
        store_bounded(self._state, "keys", key, stored | {"at": self._state.clock.now()})


def _replay(key: str, stored: Json, call_print: str) -> StoredResponse:
    if stored["print"] != call_print:
        message = (
            "Keys for idempotent requests can only be used with the same parameters they were first used with."
            f" Try using a key other than '{key}' if you meant to execute a different request."
        )
        raise StripeError(400, message, kind="idempotency_error")
    return StoredResponse(stored["status"], stored["body"], stored["request"])


def _in_use(key: str) -> StripeError:
    message = f"There is currently another in-progress request using this Idempotent Key: {key}. Try again later."
    return StripeError(409, message, kind="idempotency_error", code="idempotency_key_in_use")
