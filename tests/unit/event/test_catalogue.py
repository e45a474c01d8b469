"""The public routes of Event: the list of events with available seats, and the page of an event with its seat map."""

from __future__ import annotations

import gzip
import time
import timeit
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.chassis.clients import HttpPeer
from services.chassis.revocations import RevocationPoller
from services.chassis.settings import DatabaseSettings
from services.event import inventory_client
from services.event.app import build
from services.event.catalogue import _EventPage
from services.event.inventory_client import InventoryClient
from tests.support.databases import Databases
from tests.support.service_settings import make_credential
from tests.unit.event.event_service import FIRST, PAST, EventService, Inventory, seat

pytestmark = pytest.mark.unit

NO_EVENT = "e0e0e0e0-0000-0000-0000-00000000000f"


@pytest.fixture
def event_id(service: EventService) -> str:
    """An event with three seats. One of them is held."""
    event_id = service.new_event()
    service.inventory.maps[event_id] = ("v1", [seat(1), seat(2, "HELD"), seat(3, category="CAT2")])
    return event_id


@pytest.fixture
def without_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every cached value expire immediately."""
    monkeypatch.setattr("services.chassis.single_flight_cache.MAX_AGE", 0.0)


# ── the seat map


def test_a_seat_map_has_every_seat_with_its_price(service: EventService, event_id: str) -> None:
    answer = service.get(f"/api/events/{event_id}")
    event = answer.get_json()["data"]
    assert answer.content_type == "application/json"
    assert (event["total_seats"], event["available_seats"], event["hall_id"]) == (3, 2, "HALL-C")
    assert event["venue"]["address"] == "2 Stadium Walk, Singapore 397691"
    assert event["seats"][1] == {**seat(2, "HELD"), "price": 350}
    assert b'"price":350.00' in answer.data
    assert b'"price":99.50' in answer.data
    assert "ended" not in event


@pytest.mark.claim("protocols/event-reads-seat-map")
def test_inventory_gets_the_credential_of_event(service: EventService, event_id: str) -> None:
    service.get(f"/api/events/{event_id}")
    assert service.inventory.callers == {"event-service"}


def test_inventory_gets_one_call_per_second(service: EventService, event_id: str) -> None:
    started = time.monotonic()
    assert len({service.get(f"/api/events/{event_id}").data for _ in range(20)}) == 1
    assert service.inventory.count_calls("/seats") <= 1 + (time.monotonic() - started)


def test_a_sale_shows_within_a_second(service: EventService, event_id: str) -> None:
    service.get(f"/api/events/{event_id}")
    service.inventory.maps[event_id] = ("v2", [seat(1, "SOLD"), seat(2, "HELD"), seat(3, category="CAT2")])
    sold_at = time.monotonic()
    while service.get(f"/api/events/{event_id}").get_json()["data"]["available_seats"] != 1:
        assert time.monotonic() - sold_at < 2.5, "one second, with the time of one request on a busy machine"
        time.sleep(0.05)  # the interval of the poll, which the line above limits


@pytest.mark.usefixtures("without_cache")
def test_an_unchanged_map_is_not_transferred_again(service: EventService, event_id: str) -> None:
    bodies = {service.get(f"/api/events/{event_id}").data for _ in range(3)}
    assert service.inventory.calls == [("/seats", None), ("/seats", '"v1"'), ("/seats", '"v1"')]
    assert len(bodies) == 1


@pytest.mark.usefixtures("without_cache")
def test_new_prices_show_on_an_unchanged_map(service: EventService, event_id: str) -> None:
    service.get(f"/api/events/{event_id}")
    service.run(
        'UPDATE events SET pricing_tiers = \'{"CAT1": 400, "CAT2": 1}\' WHERE event_id = %(id)s', id=UUID(event_id)
    )
    event = service.get(f"/api/events/{event_id}").get_json()["data"]
    assert [shown["price"] for shown in event["seats"]] == [400, 400, 1]


@pytest.mark.usefixtures("without_cache")
def test_a_new_date_shows_on_an_unchanged_map(service: EventService, event_id: str) -> None:
    before = service.get(f"/api/events/{event_id}")
    service.run("UPDATE events SET name = 'A matinee' WHERE event_id = %(id)s", id=UUID(event_id))
    after = service.get(f"/api/events/{event_id}")
    assert after.get_json()["data"]["name"] == "A matinee"
    assert before.headers["ETag"] != after.headers["ETag"]


def test_a_client_with_the_current_map_gets_304(service: EventService, event_id: str) -> None:
    first = service.get(f"/api/events/{event_id}")
    again = service.get(f"/api/events/{event_id}", {"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert again.headers["X-Correlation-ID"]
    other = service.get(f"/api/events/{event_id}", {"If-None-Match": '"something-else"'})
    assert (other.status_code, other.data) == (200, first.data)


def test_compressed_map_has_the_same_content_and_version(service: EventService) -> None:
    event_id = service.new_event()
    service.inventory.maps[event_id] = ("v1", [seat(number) for number in range(1, 50)])
    plain = service.get(f"/api/events/{event_id}")
    packed = service.get(f"/api/events/{event_id}", {"Accept-Encoding": "gzip"})
    assert gzip.decompress(packed.data) == plain.data
    assert packed.headers["ETag"] == f"W/{plain.headers['ETag']}"
    for etag in (plain.headers["ETag"], packed.headers["ETag"]):
        assert service.get(f"/api/events/{event_id}", {"If-None-Match": etag}).status_code == 304


def test_a_seat_map_is_503_while_inventory_is_down(service: EventService, event_id: str) -> None:
    service.inventory.down = True
    for _ in range(5):
        answer = service.get(f"/api/events/{event_id}")
        assert (answer.status_code, answer.get_json()["error_code"]) == (503, "SERVICE_UNAVAILABLE")
        assert answer.headers["Retry-After"]
    assert service.inventory.count_calls("/seats") == 1


@pytest.mark.usefixtures("without_cache")
def test_no_stale_map_is_shown_while_inventory_is_down(service: EventService, event_id: str) -> None:
    assert service.get(f"/api/events/{event_id}").status_code == 200
    service.inventory.down = True
    assert service.get(f"/api/events/{event_id}").status_code == 503
    service.inventory.down = False
    assert service.get(f"/api/events/{event_id}").status_code == 200


@pytest.mark.parametrize("garbage", [b"", b"<html>", b'{"data": {"version": 1}}', b'{"data": null}', b"\xff"])
def test_an_unreadable_answer_of_inventory_is_503(service: EventService, event_id: str, garbage: bytes) -> None:
    service.inventory.garbage = garbage
    assert service.get(f"/api/events/{event_id}").get_json()["error_code"] == "SERVICE_UNAVAILABLE"


def test_a_past_event_still_has_its_map(service: EventService) -> None:
    assert service.get(f"/api/events/{PAST}").get_json()["data"]["seats"] == []


@pytest.mark.parametrize(("event", "code"), [(NO_EVENT, "EVENT_NOT_FOUND"), ("42", "INVALID_UUID")])
def test_an_unknown_event_is_refused(service: EventService, event: str, code: str) -> None:
    assert service.get(f"/api/events/{event}").get_json()["error_code"] == code
    assert service.inventory.calls == []


def test_50_000_seats_are_rendered_once(service: EventService) -> None:
    event_id = service.new_event(total_seats=50_000)
    service.inventory.maps[event_id] = ("v1", [seat(number) for number in range(50_000)])
    page = _EventPage(service.db, _make_client(service.inventory), UUID(event_id))
    built = page.load()
    assert built.body.count(b'"price":350.00') == 50_000
    assert page.load() is built
    fastest = min(timeit.repeat(page.load, number=1, repeat=5))
    assert fastest < 0.05  # seconds, for a read of the database and a 304, but no new page


def _make_client(inventory: Inventory) -> InventoryClient:
    return InventoryClient(
        HttpPeer("inventory-service", "http://i", make_credential("event-service", "inventory-service"), inventory)
    )


# ── the list


def test_upcoming_events_are_listed_with_available_seats(service: EventService, event_id: str) -> None:
    answer = service.get("/api/events?per_page=100").get_json()
    dates = [event["event_date"] for event in answer["data"]]
    assert dates == sorted(dates)
    listed = {event["event_id"]: event for event in answer["data"]}
    assert PAST not in listed
    assert listed[FIRST]["venue"] == {
        "venue_id": "a0a0a0a0-0000-0000-0000-000000000001",
        "name": "Singapore Indoor Stadium",
    }
    assert (listed[event_id]["available_seats"], listed[event_id]["total_seats"]) == (2, 3)
    assert set(listed[event_id]) == {
        "event_id",
        "name",
        "venue",
        "hall_id",
        "event_date",
        "total_seats",
        "available_seats",
        "pricing_tiers",
    }


def test_the_list_has_pages(service: EventService) -> None:
    soon = [service.new_event(when=f"{minute} minutes") for minute in (1, 2, 3)]
    first, second = (service.get(f"/api/events?page={page}&per_page=2").get_json() for page in (1, 2))
    assert [event["event_id"] for event in first["data"] + second["data"]][:3] == soon
    assert first["pagination"]["total_pages"] == -(-first["pagination"]["total"] // 2)
    assert service.get("/api/events?page=9999").get_json()["data"] == []


def test_an_event_leaves_the_list_when_it_begins(service: EventService, databases: Databases) -> None:
    event_id = service.new_event(when="30 seconds")
    try:
        databases.shift_clock("event", 31)
        listed = [event["event_id"] for event in service.get("/api/events?per_page=100").get_json()["data"]]
    finally:
        databases.shift_clock("event", 0)
    assert event_id not in listed


def test_the_list_has_null_counts_while_inventory_is_down(service: EventService, event_id: str) -> None:
    service.inventory.down = True
    answer = service.get("/api/events?per_page=100")
    assert answer.status_code == 200
    assert {event["available_seats"] for event in answer.get_json()["data"]} == {None}


def test_a_page_is_counted_once_per_second(service: EventService, event_id: str) -> None:
    for _ in range(10):
        service.get("/api/events?per_page=100")
    assert service.inventory.count_calls("/seats/availability") == 1


def test_a_client_with_the_current_list_gets_304(service: EventService, event_id: str) -> None:
    etag = service.get("/api/events?per_page=100").headers["ETag"]
    assert service.get("/api/events?per_page=100", {"If-None-Match": etag}).status_code == 304


def test_many_events_are_counted_in_several_calls(
    service: EventService, event_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory_client, "EVENTS_PER_CALL", 2)
    others = [uuid4() for _ in range(4)]
    counts = _make_client(service.inventory).count_available([*others, UUID(event_id)])
    assert (len(counts), counts[UUID(event_id)]) == (5, 2)
    assert service.inventory.count_calls("/seats/availability") == 3


@pytest.mark.parametrize("query", ["page=0", "per_page=101", "page=x", "per_page=-1", "page=1e3"])
def test_a_bad_page_is_refused(service: EventService, query: str) -> None:
    assert service.get(f"/api/events?{query}").get_json()["error_code"] == "VALIDATION_ERROR"


# ── access


@pytest.mark.parametrize("path", ["/api/events", f"/api/events/{FIRST}"])
def test_every_user_role_may_read_events(service: EventService, path: str) -> None:
    allowed: list[dict[str, Any]] = [{}, {"role": "staff"}]
    for by in allowed:
        assert service.get(path, **by).status_code == 200
    refused: list[dict[str, Any]] = [{"kind": "refresh"}, {"caller": "orchestrator-service"}]
    for by in refused:
        assert service.get(path, **by).get_json()["error_code"] == "UNAUTHORIZED"
    assert service.app.test_client().get(path).get_json()["error_code"] == "UNAUTHORIZED"


def test_a_revoked_session_may_not_read_events(service: EventService) -> None:
    service.revocations.revoked.add("gone")
    assert service.get("/api/events", sid="gone").get_json()["error_code"] == "UNAUTHORIZED"
    assert service.get("/api/events", sid="here").status_code == 200


def test_a_stale_revocation_list_does_not_block_reading(service: EventService) -> None:
    service.revocations.seconds = 3600.0
    assert service.get("/api/events").status_code == 200


def test_event_polls_user_for_revoked_sessions_by_default(database_for: Callable[[str], DatabaseSettings]) -> None:
    service = EventService(database_for("event"))
    (background,) = build(service.settings, service.db).extensions["background"]
    assert isinstance(background, RevocationPoller)
    service.db.close()
