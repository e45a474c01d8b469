"""The list of revoked sessions. A logout reaches each service within a second if it can reach User (D31)."""

from __future__ import annotations

import time
from urllib.parse import urlencode
from uuid import UUID

from services.chassis.access import seconds_since
from services.chassis.clients import HttpPeer
from services.chassis.single_flight_cache import SingleFlightCacheByKey
from services.chassis.worker import Worker

POLL_SECONDS = 0.5


class RevocationPoller:
    """Polls User for revoked sessions. It drops an entry when the access token of the session has expired."""

    def __init__(self, users: HttpPeer) -> None:
        self._users = users
        self._revoked: dict[str, float] = {}
        self._cursor = "after=0"
        self._fresh_at: float | None = None
        # Concurrent calls of one login share a read. None of them gets the result of a read that began before the call.
        self._roles: SingleFlightCacheByKey[str, str | None] = SingleFlightCacheByKey(
            lambda path: lambda: users.get(path)["role"], max_age=0.0
        )
        self._worker = Worker("revocations", self.poll, POLL_SECONDS)

    def start(self) -> None:
        """Start to poll."""
        self._worker.start()

    def stop(self) -> None:
        """Stop polling."""
        self._worker.stop()

    def poll(self) -> bool:
        """Fetch the new entries. True if there may be more. Raises Unknown if User does not answer."""
        polled_at = time.monotonic()
        page = self._users.get(f"/auth/revocations?{self._cursor}")
        for entry in page["revocations"]:
            self._revoked[entry["sid"]] = time.monotonic() + float(entry["seconds_left"])
        # User starts the list again if it has another entry at the cursor, as after the restore of an older backup
        self._cursor = urlencode({"after": page["cursor"], "after_sid": page.get("cursor_sid", "")})
        if not page["more"]:
            self._fresh_at = polled_at
        self._drop_expired(polled_at)
        return bool(page["more"])

    def is_revoked(self, sid: str) -> bool:
        """True if the session with this `sid` was revoked."""
        return sid in self._revoked

    def age(self) -> float:
        """Seconds since the list was last known to be complete, or infinity before the first answer."""
        return seconds_since(self._fresh_at)

    def find_role(self, user_id: UUID, sid: str) -> str | None:
        """The current role of a user, or None if their login has ended. Raises Unknown."""
        return self._roles.get(f"/users/{user_id}/role?{urlencode({'sid': sid})}")

    def _drop_expired(self, now: float) -> None:
        for sid in [sid for sid, until in self._revoked.items() if until < now]:
            del self._revoked[sid]
