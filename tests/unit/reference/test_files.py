"""Files that the reference requires: the tree (section 2), compose (4), environment (10), schema and seed (14)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

import psycopg2
import pytest
import yaml

from harness.runtime.compose import ROOT
from services.chassis.settings import DatabaseSettings
from tests.support.databases import scripts

pytestmark = pytest.mark.unit

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXAMPLE = (ROOT / ".env.example").read_text()
REQUIRED_FILES = {  # claim: files and folders
    "repository/one-compose-file": ("compose.yaml",),
    "repository/env-example": (".env.example",),
    "repository/api-page": ("API.md",),
    "repository/contributing-page": ("CONTRIBUTING.md",),
    "repository/kong-file": ("services/gateway/kong.yml",),
    "repository/orchestrator-files": tuple(
        f"services/orchestrator/{n}.py" for n in ("api/purchase", "api/transfer", "tickets/scan", "saga/flows")
    ),
    "repository/inventory-files": (
        "proto/inventory.proto",
        "services/inventory/consumer.py",
        "services/inventory/store",
    ),
    "repository/user-files": tuple(f"services/user/routes/{n}.py" for n in ("auth", "credits", "otp", "topup")),
    "repository/order-files": tuple(f"services/order/{n}.py" for n in ("order_store", "transfer_store", "disputes")),
    "repository/event-files": ("services/event/catalogue.py", "services/event/schema.sql"),
    "repository/outsystems-files": ("specs/outsystems/README.md", "specs/outsystems/verification-api-swagger.json"),
    "repository/rabbitmq-files": ("services/rabbitmq/definitions.json", "services/rabbitmq/rabbitmq.conf"),
    "testing/postman-is-exported": ("specs/postman/TicketRemaster.postman_collection.json",),
}
DATABASES = {
    "compose/seats-db": ("seats-db", "inventory", "seats_db", "inventory_user"),
    "compose/users-db": ("users-db", "user", "users_db", "user_svc_user"),
    "compose/orders-db": ("orders-db", "order", "orders_db", "order_svc_user"),
    "compose/events-db": ("events-db", "event", "events_db", "event_svc_user"),
}
PROCESSES = {
    "compose/inventory-service": ("inventory-service", 8080, {"seats-db", "rabbitmq"}, {"RABBITMQ_HOST"}),
    "compose/user-service": (
        "user-service",
        5000,
        {"users-db"},
        {"STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "SMU_API_URL", "SMU_API_KEY", "PRIVATE_KEY"},
    ),
    "compose/order-service": ("order-service", 5001, {"orders-db"}, {"DB_HOST"}),
    "compose/event-service": ("event-service", 5002, {"events-db"}, {"DB_HOST"}),
    "compose/orchestrator-service": (
        "orchestrator-service",
        5003,
        {"inventory-service", "user-service", "order-service", "event-service", "rabbitmq"},
        {
            "INVENTORY_SERVICE_URL",
            "USER_SERVICE_URL",
            "ORDER_SERVICE_URL",
            "EVENT_SERVICE_URL",
            "QR_ENCRYPTION_KEY",
            "USER_PUBLIC_KEYS",
        },
    ),
}
VARIABLES = {  # of `.env`
    "env/inventory-db-pass": ("INVENTORY_DB_PASS",),
    "env/user-db-pass": ("USER_DB_PASS",),
    "env/order-db-pass": ("ORDER_DB_PASS",),
    "env/event-db-pass": ("EVENT_DB_PASS",),
    "env/rabbitmq-login": ("RABBITMQ_USER", "RABBITMQ_PASS"),
    "env/stripe-keys": ("STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET"),
    "env/smu-access": ("SMU_API_URL", "SMU_API_KEY"),
    "env/jwt-secret": ("USER_PRIVATE_KEY", "USER_PUBLIC_KEYS", "SERVICE_PUBLIC_KEYS"),
    "env/qr-key": ("QR_ENCRYPTION_KEY",),
}
ADDRESSES = {  # of the orchestrator
    "env/rabbitmq-address": [("RABBITMQ_HOST", "rabbitmq"), ("RABBITMQ_PORT", "5672")],
    "env/inventory-address": [("INVENTORY_SERVICE_URL", "inventory-service:50051")],
    "env/service-addresses": [
        ("USER_SERVICE_URL", "http://user-service:5000"),
        ("ORDER_SERVICE_URL", "http://order-service:5001"),
        ("EVENT_SERVICE_URL", "http://event-service:5002"),
    ],
}
QUEUES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "queue/hold-exchange": ("exchanges", "seat.hold.exchange", {}),
    "queue/release-exchange": ("exchanges", "seat.release.exchange", {}),
    "queue/release-queue": ("queues", "seat.release.queue", {}),
    "queue/hold-queue": (
        "queues",
        "seat.hold.queue",
        {"x-message-ttl": 300_000, "x-dead-letter-exchange": "seat.release.exchange"},
    ),
}
SEEDED: dict[str, tuple[str, str, list[Any]]] = {  # claim: service, query and its rows
    "seed/venue-and-events": (
        "event",
        "SELECT name, total_halls FROM venues",
        [("Singapore Indoor Stadium", 3)],
    ),
    "seed/example-event": (
        "event",
        "SELECT hall_id, pricing_tiers FROM events WHERE name LIKE 'Taylor Swift%'",
        [("HALL-A", {"CAT1": 350, "CAT2": 200, "CAT3": 120})],
    ),
    "seed/seats": (
        "inventory",
        """SELECT array_agg(DISTINCT row_number::text), count(*), bool_and(status = 'AVAILABLE') FROM seats
           WHERE event_id = 'e0e0e0e0-0000-0000-0000-000000000001'""",
        [(["A", "B", "C", "D"], 100, True)],
    ),
    "seed/users": (
        "user",
        "SELECT is_flagged, credit_balance > 0 FROM users WHERE role = 'customer' ORDER BY user_id",
        [(False, True), (True, True)],
    ),
    "seed/no-orders": ("order", "SELECT * FROM orders", []),
}


def by_claim(cases: dict[str, Any]) -> list[Any]:
    """Return the test cases of each claim, which has one or a list of them."""
    return [
        pytest.param(*case, marks=pytest.mark.claim(claim), id=claim)
        for claim, found in cases.items()
        for case in (found if isinstance(found, list) else [found])
    ]


# ── section 2: tree


@pytest.mark.parametrize("paths", by_claim({claim: (paths,) for claim, paths in REQUIRED_FILES.items()}))
def test_files_of_the_reference_exist(paths: tuple[str, ...]) -> None:
    for path in paths:
        found = ROOT / path
        assert found.is_dir() or found.stat().st_size, path


# ── section 4: compose


@pytest.mark.parametrize(("name", "folder", "database", "role"), by_claim(DATABASES))
def test_each_database_has_its_own_server(name: str, folder: str, database: str, role: str) -> None:
    described = SERVICES[name]
    assert described["image"] == "postgres:16"
    assert (described["environment"]["POSTGRES_DB"], described["environment"]["DB_USER"]) == (database, role)
    assert "POSTGRES_USER" not in described["environment"], "the image makes this role the superuser"
    assert "psql" in described["healthcheck"]["test"][-1], "pg_isready would accept an empty database"
    at_first_start = [volume for volume in described["volumes"] if "/docker-entrypoint-initdb.d/" in volume]
    assert any(f"./services/{folder}/schema.sql:" in volume for volume in at_first_start)


@pytest.mark.claim("compose/named-volumes", "sql/stop-keeps-data")
@pytest.mark.parametrize("name", ["seats-db", "users-db", "orders-db", "events-db", "sagas-db"])
def test_data_of_each_database_is_in_a_named_volume(name: str) -> None:
    [source] = [v.partition(":")[0] for v in SERVICES[name]["volumes"] if ":/var/lib/postgresql/data" in v]
    assert source in COMPOSE["volumes"]
    assert sum(f"{source}:" in str(s.get("volumes")) for s in SERVICES.values()) == 1, "no other service mounts it"


@pytest.mark.claim("sql/first-start")
@pytest.mark.parametrize("name", ["seats-db", "users-db", "events-db"])
def test_first_start_runs_the_schema_before_the_seed(name: str) -> None:
    scripts = sorted(v.split(":")[1] for v in SERVICES[name]["volumes"] if "/docker-entrypoint-initdb.d/" in v)
    assert [script.rpartition("-")[2] for script in scripts] == [
        "create_role.sql",
        "chassis.sql",
        "schema.sql",
        "seed.sql",
        "init_complete.sql",
    ]


@pytest.mark.claim("compose/rabbitmq")
def test_rabbitmq_has_its_management_and_its_files() -> None:
    described = SERVICES["rabbitmq"]
    assert described["image"] == "rabbitmq:4-management"
    assert "./services/rabbitmq/rabbitmq.conf:/etc/rabbitmq/rabbitmq.conf:ro" in described["volumes"]
    assert "./services/rabbitmq:/etc/rabbitmq/ticketremaster:ro" in described["volumes"], "its definitions and start.sh"
    assert described["entrypoint"][-1].endswith("start.sh")
    assert "rabbitmq-diagnostics" in described["healthcheck"]["test"]


@pytest.mark.parametrize(("name", "port", "waits_for", "variables"), by_claim(PROCESSES))
def test_service_waits_for_its_needs_and_has_a_health_check(
    name: str, port: int, waits_for: set[str], variables: set[str]
) -> None:
    described = SERVICES[name]
    healthy = {n for n, need in described["depends_on"].items() if need["condition"] == "service_healthy"}
    assert waits_for <= healthy
    assert variables <= described["environment"].keys()
    assert f"localhost:{port}/health" in described["healthcheck"]["test"][-1]


@pytest.mark.claim("compose/api-gateway", "compose/kong-admin-port")
def test_gateway_is_kong_without_database_and_admin_port() -> None:
    described = SERVICES["api-gateway"]
    assert described["image"].startswith("kong:3")
    assert described["environment"]["KONG_DATABASE"] == "off"
    assert described["environment"]["KONG_ADMIN_LISTEN"] == "off"
    assert described["ports"] == ["127.0.0.1:8000:8000"]
    assert described["depends_on"]["orchestrator-service"]["condition"] == "service_healthy"


@pytest.mark.claim("architecture/only-gateway-is-public")
def test_only_gateway_and_broker_page_are_published() -> None:
    published = {name: described["ports"] for name, described in SERVICES.items() if "ports" in described}
    assert {name: published.pop(name)[0] for name in ("web-client", "fake-smu", "fake-stripe")} == {
        "web-client": "127.0.0.1:3000:3000",  # static files
        "fake-smu": "127.0.0.1:6001:6001",  # the inbox, and Stripe.js
        "fake-stripe": "127.0.0.1:6002:6002",
    }
    assert published == {"api-gateway": ["127.0.0.1:8000:8000"], "rabbitmq": ["127.0.0.1:15672:15672"]}


def test_the_web_client_has_only_public_settings() -> None:
    assert all(
        name == "PORT" or name.startswith(("PUBLIC_", "DEMO_")) for name in SERVICES["web-client"]["environment"]
    )


@pytest.mark.claim("layers/user-alone-calls-stripe", "layers/user-alone-calls-smu")
def test_only_the_user_service_has_access_to_stripe_and_smu() -> None:
    outside = re.compile("STRIPE|SMU")
    found = {name for name, described in SERVICES.items() if any(map(outside.match, described.get("environment", {})))}
    assert found == {"user-service", "fake-smu", "fake-stripe"}


@pytest.mark.claim("development/debug-mode")
@pytest.mark.parametrize("name", [case[0] for case in PROCESSES.values()])
def test_development_logs_debug_lines_without_a_debugger(name: str) -> None:
    override = yaml.safe_load((ROOT / "compose.dev.yaml").read_text())["services"][name]
    assert override["environment"] == {"LOG_LEVEL": "DEBUG"}


# ── section 10: environment


@pytest.mark.parametrize("names", by_claim({claim: (names,) for claim, names in VARIABLES.items()}))
def test_variable_is_in_the_example_and_used(names: tuple[str, ...]) -> None:
    for name in names:
        assert re.search(rf"^{name}=", EXAMPLE, re.M), name
        assert f"${{{name}" in (ROOT / "compose.yaml").read_text(), name


@pytest.mark.parametrize(("name", "value"), by_claim(ADDRESSES))
def test_orchestrator_uses_the_addresses_of_the_reference(name: str, value: str) -> None:
    assert SERVICES["orchestrator-service"]["environment"][name] == value


# ── sections 8 and 14: queues, schema, seed


@pytest.mark.parametrize(("kind", "name", "arguments"), by_claim(QUEUES))
def test_definitions_contain_the_queues_of_the_reference(kind: str, name: str, arguments: dict[str, Any]) -> None:
    definitions = json.loads((ROOT / "services/rabbitmq/definitions.json").read_text())
    [found] = [entry for entry in definitions[kind] if entry["name"] == name]
    assert found["durable"]
    assert kind == "queues" or found["type"] == "direct"
    assert arguments.items() <= found["arguments"].items()


SetUp = Callable[[str], AbstractContextManager[Any]]


@pytest.fixture
def set_up(database_for: Callable[[str], DatabaseSettings]) -> SetUp:
    """`set_up(service)` runs the service's scripts in a new schema, yields a cursor there, and rolls back."""

    @contextmanager
    def fresh(service: str) -> Iterator[Any]:
        at = database_for(service)
        with closing(psycopg2.connect(host=at.addresses[0].host, dbname=at.name, user=at.user)) as connection:
            with connection.cursor() as cursor:
                cursor.execute("CREATE SCHEMA fresh; SET LOCAL search_path = fresh")
                for script in scripts(service):
                    cursor.execute(script.read_text())
                yield cursor
                connection.rollback()

    return fresh


@pytest.mark.parametrize(("service", "sql", "expected"), by_claim(SEEDED))
def test_seed_is_as_in_the_reference(service: str, sql: str, expected: list[Any], set_up: SetUp) -> None:
    with set_up(service) as cursor:
        cursor.execute(sql)
        assert cursor.fetchall() == expected


@pytest.mark.claim("sql/schema-reruns", "sql/seed-reruns")
@pytest.mark.parametrize("service", ["inventory", "user", "order", "event", "orchestrator"])
def test_schema_and_seed_run_again_without_changes(service: str, set_up: SetUp) -> None:
    with set_up(service) as cursor:
        before = rows(cursor)
        for script in scripts(service):
            cursor.execute(script.read_text())
        assert rows(cursor) == before


def rows(cursor: Any) -> dict[str, list[Any]]:
    """Return every row of every table."""
    cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'fresh'")
    found: dict[str, list[Any]] = {}
    for (table,) in cursor.fetchall():
        cursor.execute(f"SELECT * FROM fresh.{table}")
        found[table] = sorted(cursor.fetchall(), key=repr)
    assert found
    return found
