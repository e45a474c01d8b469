"""The Event service with its test client. A stub transport replaces Inventory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

from services.chassis import tokens
from services.chassis.db import Database
from services.chassis.settings import DatabaseSettings
from services.event.app import build
from services.event.settings import Settings
from tests.support.service_settings import SERVICE_KEYS, credential_headers, process_settings, user_token
from tests.support.stubs import check_response

FIRST, SECOND, PAST = (f"e0e0e0e0-0000-0000-0000-00000000000{n}" for n in (1, 2, 3))


def seat(number: int, status: str = "AVAILABLE", category: str = "CAT1") -> dict[str, Any]:
    """A seat as Inventory returns it."""
    return {
        "seat_id": str(UUID(int=number)),
        "row_number": "A",
        "seat_number": number,
        "status": status,
        "category": category,
    }


@dataclass
class Inventory:
    """A stub transport for Inventory with the seat maps in `maps`. It refuses connections while `down`."""

    maps: dict[str, tuple[str, list[dict[str, Any]]]] = field(default_factory=dict)
    down: bool = False
    garbage: bytes | None = None
    calls: list[tuple[str, str | None]] = field(default_factory=list)
    callers: set[str] = field(default_factory=set)
    lock: Lock = field(default_factory=Lock)

    def __call__(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        address = urlsplit(url)
        with self.lock:
            self.calls.append((address.path, headers.get("If-None-Match")))
            self.callers.add(
                tokens.verify_caller(SERVICE_KEYS, "inventory-service", tokens.parse_bearer(headers["Authorization"]))
            )
        if self.down:
            raise ConnectionRefusedError("refused")
        if self.garbage is not None:
            return check_response("inventory", method, url, 200, self.garbage, wrong=True)
        event_ids = parse_qs(address.query)["event_id"]
        is_count = address.path == "/seats/availability"
        answer = self._render_counts(event_ids) if is_count else self._render_map(event_ids[0], headers)
        return check_response("inventory", method, url, *answer)

    def _render_map(self, event_id: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        version, seats = self.maps.get(event_id, ("empty", []))
        if headers.get("If-None-Match") == f'"{version}"':
            return 304, b""
        return 200, json.dumps({"success": True, "data": {"version": version, "seats": seats}}).encode()

    def _render_counts(self, event_ids: list[str]) -> tuple[int, bytes]:
        counts = [self._count(event_id) for event_id in event_ids]
        return 200, json.dumps({"success": True, "data": counts}).encode()

    def _count(self, event_id: str) -> dict[str, Any]:
        seats = self.maps.get(event_id, ("", []))[1]
        available = sum(seat["status"] == "AVAILABLE" for seat in seats)
        return {"event_id": event_id, "total_seats": len(seats), "available_seats": available}

    def count_calls(self, path: str) -> int:
        return sum(called == path for called, _ in self.calls)


@dataclass
class RevocationList:
    """A list of revoked sessions with an age in seconds."""

    revoked: set[str] = field(default_factory=set)
    seconds: float = 0.0

    def is_revoked(self, sid: str) -> bool:
        return sid in self.revoked

    def age(self) -> float:
        return self.seconds

    def find_role(self, _user_id: UUID, _sid: str) -> str | None:
        return "staff"


class EventService:
    """The calls of Event, by a signed-in customer by default."""

    def __init__(self, database: DatabaseSettings) -> None:
        self.inventory = Inventory()
        self.revocations = RevocationList()
        self.db = Database(database)
        process = process_settings("event-service")
        self.settings = Settings(process, database, "http://inventory-service:8080", "http://user-service:5000")
        self.app = build(self.settings, self.db, self.inventory, self.revocations)

    def get(self, path: str, headers: Mapping[str, str] | None = None, **by: str) -> Any:
        return self.app.test_client().get(path, headers={**self.bearer(**by), **(headers or {})})

    def bearer(self, caller: str | None = None, kind: str = "access", role: str = "customer", sid: str = "sid") -> Any:
        if caller is not None:
            return credential_headers(caller, "event-service")
        return {"Authorization": f"Bearer {user_token(UUID(int=7), role, sid, kind)}"}

    def new_event(self, when: str = "1 day", total_seats: int = 3, prices: str = '{"CAT1": 350, "CAT2": 99.5}') -> str:
        """Insert an event with the date `when` from now."""
        event_id = uuid4()
        sql = """INSERT INTO events SELECT %(id)s, 'An evening', venue_id, 'HALL-C', app_now() + %(when)s::interval,
                 %(total)s, %(prices)s::jsonb FROM venues LIMIT 1"""
        with self.db.transaction() as tx:
            tx.run(sql, id=event_id, when=when, total=total_seats, prices=prices)
        return str(event_id)

    def run(self, sql: str, **params: Any) -> None:
        with self.db.transaction() as tx:
            tx.run(sql, **params)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
