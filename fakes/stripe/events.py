"""The context of a call to the API, and the events of its effects."""

import copy
import time
from dataclasses import dataclass
from typing import Any

from fakes.control import FakeState
from fakes.ids import BASE62
from fakes.stripe import objects

MAX_STORED = 2_000  # objects of each kind, events, waiting webhooks and idempotency keys

Json = dict[str, Any]


def new_id(state: FakeState, prefix: str) -> str:
    return f"{prefix}_{state.ids.draw(BASE62, 24)}"


def store_bounded(state: FakeState, collection: str, object_id: str, value: Json) -> None:
    """Store an object, and delete the oldest one of its collection beyond `MAX_STORED`."""
    kept = state.store[collection]
    kept[object_id] = value
    while len(kept) > MAX_STORED:
        del kept[next(iter(kept))]


@dataclass(frozen=True)
class Call:
    """The request behind an effect. Effects run under the state's lock."""

    state: FakeState
    request_id: str | None = None
    key: str | None = None

    @property
    def now(self) -> int:
        return int(self.state.clock.now())

    def emit(self, kind: str, source: Json) -> Json:
        """Store an event with the object as it is now, and queue it for the webhook endpoint, if any."""
        store = self.state.store
        script = store["webhooks"]
        cause = {"id": self.request_id, "idempotency_key": self.key}
        object_id = new_id(self.state, "evt")
        pending = 1 if script["url"] else 0
        event = objects.event(object_id, self.now, kind, copy.deepcopy(source), cause, pending)
        store_bounded(self.state, "events", object_id, event)
        if pending:
            due = None if script["hold"] else time.time() + script["delay_ms"] / 1000
            job = {"event": object_id, "attempt": 1, "due": due}
            store["queue"].append(job | {name: script[name] for name in ("copies", "signatures")})
            del store["queue"][:-MAX_STORED]  # their events are deleted as well
            self.state.changed.notify_all()
        return event
