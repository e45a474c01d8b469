"""A call to the API as its effects see it, and the events that the effects leave behind."""

import copy
import time
from dataclasses import dataclass
from typing import Any

from fakes.control import Plane
from fakes.ids import BASE62
from fakes.stripe import objects

Json = dict[str, Any]


def new_id(plane: Plane, prefix: str) -> str:
    return f"{prefix}_{plane.ids.draw(BASE62, 24)}"


@dataclass(frozen=True)
class Call:
    """The request that causes what happens. Effects run under the plane's lock."""

    plane: Plane
    request_id: str | None = None
    key: str | None = None

    @property
    def now(self) -> int:
        return int(self.plane.clock.now())

    def emit(self, kind: str, about: Json) -> Json:
        """Record an event about the object as it is now, and queue it for the webhook endpoint if any."""
        store = self.plane.store
        script = store["webhooks"]
        cause = {"id": self.request_id, "idempotency_key": self.key}
        ident = new_id(self.plane, "evt")
        pending = 1 if script["url"] else 0
        made = objects.event(ident, self.now, kind, copy.deepcopy(about), cause, pending)
        store["events"][ident] = made
        if pending:
            due = None if script["hold"] else time.time() + script["delay_ms"] / 1000
            job = {"event": ident, "attempt": 1, "due": due}
            store["queue"].append(job | {name: script[name] for name in ("copies", "signatures")})
            self.plane.changed.notify_all()
        return made
