"""The HTTP routes of Inventory: seat maps and their versions, counts, health, metrics and callers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from services.chassis.db import _Connection
from services.inventory.app import build
from services.inventory.store import holds, seats
from tests.support.databases import Databases, scripts
from tests.support.service_settings import credential_headers, new_id
from tests.unit.inventory.inventory_service import InventoryService, settings_for

pytestmark = pytest.mark.unit

SEEDED = [f"e0e0e0e0-0000-0000-0000-00000000000{number}" for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def app(databases: Databases, inventory: InventoryService) -> Iterator[Any]:
    app = build(settings_for(databases.database_for("inventory")), inventory.db)
    yield app
    app.extensions["background"][-1].stop()  # the gRPC server listens on its port


class Getter:
    """Sends GETs with a service credential."""

    def __init__(self, app: Any, caller: str | None = "event-service") -> None:
        self._client = app.test_client()
        self._headers = credential_headers(caller, "inventory-service") if caller else {}

    def __call__(self, path: str, version: str | None = None) -> Any:
        conditions = {"If-None-Match": f'"{version}"'} if version else {}
        return self._client.get(path, headers={**self._headers, **conditions})


@pytest.fixture(scope="module")
def get(app: Any) -> Getter:
    return Getter(app)


def _map(get: Getter, event_id: str) -> Any:
    return get(f"/seats?event_id={event_id}").get_json()["data"]


def _available(get: Getter, *event_ids: str) -> list[int]:
    data = get("/seats/availability?" + "&".join(f"event_id={e}" for e in event_ids)).get_json()["data"]
    return [count["available_seats"] for count in data]


# ── maps


def test_map_shows_each_seat_with_its_status_by_row_and_number(inventory, get):
    event_id = new_id()
    free, held = inventory.new_seat(event_id), inventory.new_seat(event_id)
    inventory.reserve(held)
    shown = _map(get, event_id)["seats"]
    assert [seat["seat_number"] for seat in shown] == sorted(seat["seat_number"] for seat in shown)
    assert {seat["seat_id"]: seat["status"] for seat in shown} == {free: "AVAILABLE", held: "HELD"}
    assert set(shown[0]) == {"seat_id", "row_number", "seat_number", "status", "category"}


@pytest.mark.claim("seed/seats")
def test_seeded_maps_match_the_documentation(get):
    small, large, past = (_map(get, event_id)["seats"] for event_id in SEEDED)
    small = [seat for seat in small if seat["row_number"] != "T"]  # row T has the seats of other tests
    assert (len(small), len(large), len(past)) == (100, 5000, 20)
    rows = {seat["row_number"]: seat["category"] for seat in small}
    assert rows == {"A": "CAT1", "B": "CAT2", "C": "CAT2", "D": "CAT3"}
    assert small[0]["seat_id"] == "5ea70001-0000-0000-0000-000000000001"
    assert large[-1]["seat_id"] == "5ea70002-0000-0000-0000-000000005000"
    assert (large[-1]["row_number"], large[-1]["seat_number"], large[-1]["category"]) == ("R100", 50, "CAT3")
    by_category = {name: sum(seat["category"] == name for seat in large) for name in ("CAT1", "CAT2", "CAT3")}
    assert by_category == {"CAT1": 1000, "CAT2": 2000, "CAT3": 2000}


@pytest.mark.claim("sql/seed-reruns")
def test_seed_can_be_run_again_and_changes_nothing(databases, inventory):
    before = inventory.row("SELECT count(*) AS n FROM seats")["n"]
    with inventory.db.transaction() as tx:
        for script in scripts("inventory")[1:]:
            tx.run(script.read_text().replace("%", "%%"))
    assert inventory.row("SELECT count(*) AS n FROM seats")["n"] == before


def test_map_of_an_event_without_seats_is_empty(get):
    data = _map(get, new_id())
    assert data["seats"] == []


def test_unchanged_map_is_304_with_its_version(inventory, get):
    event_id = new_id()
    inventory.new_seat(event_id)
    first = get(f"/seats?event_id={event_id}")
    version = first.get_json()["data"]["version"]
    again = get(f"/seats?event_id={event_id}", version)
    assert (again.status_code, again.data) == (304, b"")
    assert first.headers["ETag"] == again.headers["ETag"] == f'"{version}"'


@pytest.mark.claim("schema/seats.updated_at")
@pytest.mark.parametrize("change", ["reserve", "release", "confirm", "sweep", "check_in", "cancel"])
def test_every_change_of_a_seat_changes_the_version(inventory, get, change):
    event_id = new_id()
    seat_id, hold_id, user_id = inventory.new_seat(event_id), new_id(), new_id()
    steps: dict[str, Callable[[], object]] = {
        "reserve": lambda: inventory.reserve(seat_id, user_id, hold_id),
        "release": lambda: inventory.release(seat_id, hold_id),
        "confirm": lambda: inventory.confirm(seat_id, hold_id, user_id),
        "sweep": lambda: _expire_and_sweep(inventory, seat_id),
        "check_in": lambda: inventory.check_in(seat_id, hold_id, user_id),
        "cancel": lambda: inventory.cancel_sale(seat_id, hold_id, user_id),
    }
    before = {"reserve": [], "release": ["reserve"], "confirm": ["reserve"], "sweep": ["reserve"]}
    for step in before.get(change, ["reserve", "confirm"]):
        steps[step]()
    version, status = _map(get, event_id)["version"], inventory.seat(seat_id).status
    steps[change]()
    assert inventory.seat(seat_id).status != status
    assert get(f"/seats?event_id={event_id}", version).status_code == 200


def _expire_and_sweep(inventory: InventoryService, seat_id: str) -> None:
    inventory.expire(seat_id)
    holds.sweep(inventory.db, 1000, grace_seconds=0)


def test_late_commit_with_an_older_updated_at_changes_the_version(inventory, get):
    """The newest `updated_at` alone would miss it, so the map would be stale until the next change."""
    event_id = new_id()
    slow, quick = inventory.new_seat(event_id), inventory.new_seat(event_id)
    stamp = "UPDATE seats SET category = 'CAT2', updated_at = statement_timestamp() WHERE seat_id = %(seat_id)s"
    with inventory.db.transaction() as tx:
        tx.run(stamp, seat_id=slow)
        inventory.reserve(quick)
        version = _map(get, event_id)["version"]
    assert get(f"/seats?event_id={event_id}", version).status_code == 200


def test_version_of_a_quiet_event_is_stable(inventory, get):
    event_id = new_id()
    inventory.new_seat(event_id)
    with inventory.db.transaction() as tx:
        tx.run(
            "UPDATE seats SET updated_at = now() - interval '1 day' WHERE event_id = %(event_id)s", event_id=event_id
        )
    version = _map(get, event_id)["version"]
    assert version.endswith("-0")  # no transaction can be open, so the newest `updated_at` is enough
    assert _map(get, event_id)["version"] == version


def test_holds_of_one_event_do_not_wait_for_each_other(inventory):
    event_id = new_id()
    one, other = inventory.new_seat(event_id), inventory.new_seat(event_id)
    with inventory.db.transaction() as tx:
        tx.run("UPDATE seats SET updated_at = statement_timestamp() WHERE seat_id = %(seat_id)s", seat_id=one)
        assert inventory.reserve(other).seat_id == other


# ── counts


def test_counts_follow_the_seats_in_the_requested_order(inventory, get):
    full, empty = new_id(), new_id()
    seat_id = inventory.new_seat(full)
    inventory.new_seat(full)
    assert _available(get, empty, full) == [0, 2]
    hold = inventory.reserve(seat_id)
    assert _available(get, full, empty) == [1, 0]
    inventory.release(seat_id, hold.hold_id)
    assert _available(get, full) == [2]


def test_unchanged_events_are_not_counted_again(inventory, get, monkeypatch):
    event_id = new_id()
    inventory.new_seat(event_id)
    assert _available(get, event_id) == [1]
    monkeypatch.setattr(seats, "counts", lambda *_: pytest.fail("counted again"))
    assert _available(get, event_id) == [1]


# ── callers, bad requests, health


@pytest.mark.parametrize("path", ["/seats", "/seats?event_id=", "/seats?event_id=x", "/seats/availability"])
def test_bad_query_is_refused(get, path):
    answer = get(path)
    assert answer.status_code == 400
    assert answer.get_json()["error_code"] in ("VALIDATION_ERROR", "INVALID_UUID")


def test_too_many_events_are_refused(get):
    query = "&".join(f"event_id={new_id()}" for _ in range(101))
    assert get(f"/seats/availability?{query}").get_json()["error_code"] == "VALIDATION_ERROR"


@pytest.mark.claim("protocols/event-reads-seat-map")
@pytest.mark.parametrize("path", [f"/seats?event_id={SEEDED[0]}", f"/seats/availability?event_id={SEEDED[0]}"])
@pytest.mark.parametrize(
    ("caller", "status"), [(None, 401), ("orchestrator-service", 403), ("user-service", 401), ("event-service", 200)]
)
def test_only_event_reads_seats(app, path, caller, status):
    assert Getter(app, caller)(path).status_code == status


def test_health_is_ok_without_a_broker(app):
    answer = app.test_client().get("/health")
    health = answer.get_json()
    assert (answer.status_code, health["checks"]) == (200, {"database": "ok"})
    assert (health["consumer"], health["parked_messages"]) == ("starting", None)


@pytest.mark.claim("lock/none-for-browsing")
def test_map_is_readable_while_a_seat_is_locked(inventory, get):
    event_id = new_id()
    seat_id = inventory.new_seat(event_id)
    with inventory.lock_row(seat_id):
        assert [seat["seat_id"] for seat in _map(get, event_id)["seats"]] == [seat_id]


def test_metrics_count_what_happened(app, inventory):
    seat_id, _, _ = inventory.held_seat()
    with inventory.lock_row(seat_id), pytest.raises(Exception, match="SEAT_UNAVAILABLE"):
        inventory.reserve(seat_id)
    text = app.test_client().get("/metrics").get_data(as_text=True)
    for name in ("inventory_holds_total", "inventory_nowait_losses_total", "inventory_parked_messages"):
        assert f"\n{name} " in text


def test_map_of_50_000_seats_is_fast(databases, get):
    event_id = new_id()
    fill = f"""INSERT INTO seats (seat_id, event_id, row_number, seat_number, category, updated_at)
        SELECT gen_random_uuid(), '{event_id}', 'R' || lpad((n / 500)::text, 3, '0'), n % 500, 'CAT1',
            now() - interval '1 day'
        FROM generate_series(1, 50000) AS n"""
    with closing(databases.superuser("inventory")) as connection, connection.cursor() as cursor:
        cursor.execute(fill)  # the superuser has no statement_timeout
        cursor.execute("ANALYZE seats")
    started = time.monotonic()
    data = _map(get, event_id)
    assert len(data["seats"]) == 50_000
    assert time.monotonic() - started < 5
    started = time.monotonic()
    for _ in range(20):
        assert get(f"/seats?event_id={event_id}", data["version"]).status_code == 304
    assert (time.monotonic() - started) / 20 < 0.1


def test_map_needs_one_statement_for_any_number_of_seats(inventory, get, monkeypatch):
    statements: list[str] = []
    execute = _Connection.execute

    def count_statement(self, sql, params=None):
        if not sql.startswith(("PREPARE", "COMMIT")):
            statements.append(sql)
        return execute(self, sql, params)

    monkeypatch.setattr(_Connection, "execute", count_statement)
    _map(get, SEEDED[1])
    assert len(statements) == 2  # the version, the map
