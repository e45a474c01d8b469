"""Ended logins, known to every service within a second (D31 of the decisions: logout revokes the whole login)."""

from __future__ import annotations

import time

from services.chassis.access import seconds_since
from services.chassis.clients import HttpPeer
from services.chassis.worker import Worker

POLL_SECONDS = 0.5


class RevocationPoller:
    """Follows User's list of ended logins. A login's entry is dropped once its access token has run out."""

    def __init__(self, users: HttpPeer) -> None:
        self._users = users
        self._revoked: dict[str, float] = {}
        self._cursor = 0
        self._fresh_at: float | None = None
        self._worker = Worker("revocations", self.poll, POLL_SECONDS)

    def start(self) -> None:
        """Begin to follow."""
        self._worker.start()

    def stop(self) -> None:
        """Stop following."""
        self._worker.stop()

    def poll(self) -> bool:
        """Ask for what is new. True when there may be more. Raises Unknown when User does not answer."""
        asked_at = time.monotonic()
        news = self._users.get(f"/auth/revocations?after={self._cursor}")
        for entry in news["revocations"]:
            self._revoked[entry["sid"]] = time.monotonic() + float(entry["seconds_left"])
        self._cursor = news["cursor"]
        self._fresh_at = None if news["more"] and self._fresh_at is None else asked_at
        self._forget(asked_at)
        return bool(news["more"])

    def is_revoked(self, sid: str) -> bool:
        """True when the login was ended."""
        return sid in self._revoked

    def age(self) -> float:
        """Seconds since the list was last known to be whole; endless before the first answer."""
        return seconds_since(self._fresh_at)

    def _forget(self, now: float) -> None:
        for sid in [sid for sid, until in self._revoked.items() if until < now]:
            del self._revoked[sid]
