"""Idempotency keys by Stripe's rules: the first answer of an execution is the answer for 24 hours, 500s
and declines included; what was refused before it executed is forgotten."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fakes.control import Plane
from fakes.stripe.errors import Json, StripeError

LIFE_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    original: str | None = None  # the request that made it, when this is a replay


def fingerprint(method: str, path: str, params: Json) -> str:
    text = json.dumps([method, path, params], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Keys:
    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._running: set[str] = set()

    def run(self, key: str, print_: str, request_id: str, work: Callable[[], Answer]) -> Answer:
        """`work` once for each key. Raises 409 while the first call is under way and 400 for other
        parameters under the same key; a StripeError from `work` is not remembered."""
        with self._plane.lock:
            kept = self._kept(key)
            if kept is not None:
                return _replay(key, kept, print_)
            if key in self._running:
                raise _in_use(key)
            self._running.add(key)
        try:
            answer = work()
            with self._plane.lock:
                self._keep(key, print_, request_id, answer)
            return answer
        finally:
            self._running.discard(key)

    def _kept(self, key: str) -> Json | None:
        kept: Json | None = self._plane.store["keys"].get(key)
        return kept if kept and self._plane.clock.now() < kept["at"] + LIFE_SECONDS else None

    def _keep(self, key: str, print_: str, request_id: str, answer: Answer) -> None:
        kept = {"print": print_, "status": answer.status, "body": answer.body, "request": request_id}
        self._plane.store["keys"][key] = kept | {"at": self._plane.clock.now()}


def _replay(key: str, kept: Json, print_: str) -> Answer:
    if kept["print"] != print_:
        message = (
            "Keys for idempotent requests can only be used with the same parameters they were first used with."
            f" Try using a key other than '{key}' if you meant to execute a different request."
        )
        raise StripeError(400, message, kind="idempotency_error")
    return Answer(kept["status"], kept["body"], kept["request"])


def _in_use(key: str) -> StripeError:
    message = f"There is currently another in-progress request using this Idempotent Key: {key}. Try again later."
    return StripeError(409, message, kind="idempotency_error", code="idempotency_key_in_use")
