"""The routes of Event for the orchestrator, and the seed data."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from services.chassis.errors import ConfigurationError
from services.chassis.settings import Env
from services.event.settings import Settings
from tests.support.databases import Databases, scripts
from tests.support.service_settings import key_environment
from tests.unit.event.event_service import FIRST, PAST, SECOND, EventService

pytestmark = pytest.mark.unit
ORCHESTRATOR = "orchestrator-service"
VENUE = {
    "venue_id": "a0a0a0a0-0000-0000-0000-000000000001",
    "name": "Singapore Indoor Stadium",
    "address": "2 Stadium Walk, Singapore 397691",
}


@pytest.mark.claim("schema/events.hall_id", "gate/reads-hall", "layers/event-over-rest")
def test_the_orchestrator_gets_hall_prices_and_venue_without_seats(service: EventService) -> None:
    answer = service.get(f"/events/{FIRST}", caller=ORCHESTRATOR)
    facts = answer.get_json()["data"]
    assert (facts["hall_id"], facts["total_seats"], facts["ended"], facts["venue"]) == ("HALL-A", 100, False, VENUE)
    assert b'"pricing_tiers":{"CAT1":350.00,"CAT2":200.00,"CAT3":120.00}' in answer.data
    assert "seats" not in facts
    assert service.inventory.calls == []


def test_facts_of_several_events_come_in_one_answer(service: EventService) -> None:
    asked = f"/events?event_id={FIRST}&event_id={PAST}"
    found = service.get(asked, caller=ORCHESTRATOR).get_json()
    assert {event["event_id"] for event in found["data"]} == {FIRST, PAST}
    assert found["pagination"]["total"] == 2
    too_many = "/events?" + f"event_id={FIRST}&" * 101
    assert service.get(too_many, caller=ORCHESTRATOR).status_code == 400


@pytest.mark.claim("seed/venue-and-events", "seed/example-event")
def test_the_seed_has_two_upcoming_events_and_one_past_event(service: EventService) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for event_id, days, hall, seats in (
        (FIRST, 60, "HALL-A", 100),
        (SECOND, 90, "HALL-B", 5000),
        (PAST, -30, "HALL-A", 20),
    ):
        facts = service.get(f"/events/{event_id}", caller=ORCHESTRATOR).get_json()["data"]
        when = datetime.fromisoformat(facts["event_date"])
        assert abs(when - (today + timedelta(days=days, hours=11))) <= timedelta(days=1)  # midnight may have passed
        assert (facts["hall_id"], facts["total_seats"], facts["ended"]) == (hall, seats, days < 0)


@pytest.mark.claim("sql/seed-reruns", "sql/restart-skips-sql")
def test_a_second_seeding_changes_nothing(service: EventService, databases: Databases) -> None:
    sql = "SELECT * FROM events WHERE event_id::text LIKE 'e0e0e0e0-%' ORDER BY event_id"
    with closing(databases.superuser("event")) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        before = cursor.fetchall()
        databases.shift_clock("event", 5 * 86400)
        cursor.execute("SET ROLE event_svc_user")
        for script in scripts("event"):
            cursor.execute(script.read_text())
        databases.shift_clock("event", 0)
        cursor.execute(sql)
        assert cursor.fetchall() == before


def test_the_database_clock_decides_when_an_event_has_ended(service: EventService, databases: Databases) -> None:
    event_id = service.new_event(when="10 minutes")
    try:
        databases.shift_clock("event", 601)
        assert service.get(f"/events/{event_id}", caller=ORCHESTRATOR).get_json()["data"]["ended"] is True
    finally:
        databases.shift_clock("event", 0)
    assert service.get(f"/events/{event_id}", caller=ORCHESTRATOR).get_json()["data"]["ended"] is False


def test_the_orchestrator_gets_all_events_latest_first(service: EventService) -> None:
    answer = service.get("/events?per_page=100", caller=ORCHESTRATOR).get_json()
    dates = [event["event_date"] for event in answer["data"]]
    assert dates == sorted(dates, reverse=True)
    assert {FIRST, SECOND, PAST} <= {event["event_id"] for event in answer["data"]}
    assert answer["pagination"]["total"] == len(answer["data"])


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/events/e0e0e0e0-0000-0000-0000-00000000000f", "EVENT_NOT_FOUND"),
        ("/events/42", "INVALID_UUID"),
        ("/events?page=0", "VALIDATION_ERROR"),
        ("/events?per_page=1000", "VALIDATION_ERROR"),
    ],
)
def test_a_bad_path_or_query_is_refused_with_its_code(service: EventService, path: str, code: str) -> None:
    assert service.get(path, caller=ORCHESTRATOR).get_json()["error_code"] == code


@pytest.mark.parametrize("path", ["/events", f"/events/{FIRST}"])
def test_only_the_orchestrator_may_read_facts(service: EventService, path: str) -> None:
    for caller in ("inventory-service", "order-service", "event-service"):
        assert service.get(path, caller=caller).get_json()["error_code"] == "FORBIDDEN"
    assert service.get(path, caller="user-service").get_json()["error_code"] == "UNAUTHORIZED"  # it calls no service
    assert service.get(path).get_json()["error_code"] == "UNAUTHORIZED"
    assert service.get(path, caller=ORCHESTRATOR).status_code == 200


def test_event_is_ready_while_inventory_is_down(service: EventService) -> None:
    service.inventory.down = True
    assert service.app.test_client().get("/health").get_json()["checks"] == {"database": "ok"}


def test_settings_name_the_missing_variable() -> None:
    names = ("DB_HOST", "DB_NAME", "DB_USER", "DB_PASS", "INVENTORY_HTTP_URL", "USER_SERVICE_URL")
    whole = dict.fromkeys(names, "x") | key_environment("event-service")
    assert Settings.read(Env(whole)).process.port == 5002
    for name in whole:
        with pytest.raises(ConfigurationError, match=name):
            Settings.read(Env({**whole, name: ""}))
