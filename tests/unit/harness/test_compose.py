"""The harness reads compose.yaml and derives the native programs from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness import StackError, runtime
from harness.runtime import compose, variables
from harness.runtime.compose import ROOT, Service, interpolate
from harness.runtime.process_plan import add_needs, plan_programs, start_levels
from harness.runtime.program import native_environment

pytestmark = pytest.mark.unit

FILE = ROOT / "compose.yaml"
DEMO = variables.resolve({}, {}, compose.variables_of(FILE))
SERVICES = compose.load(FILE, DEMO)


def service(name: str, *depends_on: str, environment: dict[str, str] | None = None) -> Service:
    return Service(name, "", (), environment or {}, (), None, depends_on, ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}-${B}", "a-"),
        ("${A:-x}${B:-y}${C:-z}", "ayz"),
        ("${B-y}${C-z}", "z"),  # without the colon an empty value counts as given
        ("${A:?is needed}", "a"),
        ("$$A costs $5", "$A costs $5"),
    ],
)
def test_variables_follow_the_rules_of_compose(text: str, expected: str) -> None:
    assert interpolate(text, {"A": "a", "B": ""}) == expected


@pytest.mark.parametrize("text", ["${B:?set B}", "${C:?set C}", "${C?set C}"])
def test_missing_required_variable_is_named(text: str) -> None:
    with pytest.raises(StackError, match=r"set [BC]"):
        interpolate(text, {"B": ""})


def test_health_checks_use_the_main_port() -> None:
    for name, found in SERVICES.items():
        if found.kind == "python" and name != "gateway-config":
            assert found.probe is not None, name
            assert found.probe[0] == int(found.environment["PORT"]) == found.ports[0], name


@pytest.mark.claim(
    "compose/seats-db",
    "compose/users-db",
    "compose/orders-db",
    "compose/events-db",
    "sql/first-start",
    "schema/database-per-service",
)
def test_each_database_gets_its_sql_in_order_and_its_own_service() -> None:
    users = {}
    for name, found in SERVICES.items():
        if found.kind == "postgres":
            assert [path.name for path in found.initdb][:3] == ["create_role.sql", "schema.sql", "schema.sql"], name
            assert found.initdb[1] == ROOT / "services/chassis/schema.sql", name
            assert found.initdb[-1] == ROOT / "services/chassis/init_complete.sql", name
        elif "DB_HOST" in found.environment:
            users[found.environment["DB_HOST"]] = found.environment
    for name, env in users.items():
        database = SERVICES[name].environment
        assert (env["DB_NAME"], env["DB_USER"]) == (database["POSTGRES_DB"], database["DB_USER"])
        assert env["DB_PASS"] == database["POSTGRES_PASSWORD"]
    assert len(users) == 5


@pytest.mark.claim("repository/env-example", "compose/secrets-in-env-file")
def test_env_example_lists_exactly_the_variables_of_compose() -> None:
    assert variables.read(ROOT / ".env.example").keys() == compose.variables_of(FILE)


@pytest.mark.claim("compose/secrets-in-env-file")
def test_no_secret_has_a_default_in_compose_file() -> None:
    with pytest.raises(StackError):
        compose.load(FILE, {})
    text = FILE.read_text()
    for name in compose.variables_of(FILE):
        if name.endswith(("_PASS", "_SECRET", "_KEY")):
            assert f"${{{name}:-" not in text, name


def test_only_addresses_are_replaced_in_an_environment() -> None:
    env = {
        "PORT": "5000",
        "DB_HOST": "users-db",
        "DB_PORT": "5432",
        "URL": "http://order:5001/x",
        "GRPC": "inventory:50051",
        "DB_PASS": "users-db",
        "OUTSIDE": "https://api.stripe.com:443",
        "STATUS": "127.0.0.1:5000",
    }
    ports = {"me": {5000: 1}, "users-db": {5432: 2}, "order": {5001: 3}, "inventory": {8080: 4, 50051: 5}}
    me = replace(service("me", environment=env), ports=(5000,))
    assert native_environment(me, ports) == {
        "PORT": "1",
        "BIND": "127.0.0.1",
        "DB_HOST": "127.0.0.1",
        "DB_PORT": "2",
        "URL": "http://127.0.0.1:3/x",
        "GRPC": "127.0.0.1:5",
        "DB_PASS": "users-db",
        "OUTSIDE": "https://api.stripe.com:443",
        "STATUS": "127.0.0.1:1",
    }


def test_native_programs_start_level_by_level(tmp_path: Path) -> None:
    ports = {name: dict.fromkeys((*found.ports, 25672, 4369), 1) for name, found in SERVICES.items()}
    planned = plan_programs(SERVICES, ports, DEMO, tmp_path)
    assert "gateway-config" not in planned
    assert [level for level in start_levels(planned, planned) if "api-gateway" in level] == [["api-gateway"]]
    assert start_levels(planned, planned)[-1] == ["api-gateway"]
    assert add_needs(planned, ["order-service"]) == ["postgres", "order-service"]


@pytest.mark.claim("schema/seats.held_until")
def test_run_directory_keeps_its_secrets_but_not_its_settings() -> None:
    known = {"SMU_API_KEY": "kept", "HOLD_TTL_SECONDS": "5"}
    found = variables.resolve(known, {"LOG_LEVEL": "DEBUG"}, frozenset())
    assert (found["SMU_API_KEY"], found["HOLD_TTL_SECONDS"], found["LOG_LEVEL"]) == ("kept", "300", "DEBUG")
    assert len(found["QR_ENCRYPTION_KEY"]) == 32
    assert found["USER_PRIVATE_KEY"] != variables.resolve({}, {}, frozenset())["USER_PRIVATE_KEY"]


def test_misspelt_variable_is_refused() -> None:
    with pytest.raises(StackError, match="HOLD_TTL_SECS"):
        variables.resolve({}, {"HOLD_TTL_SECS": "5"}, compose.variables_of(FILE))


@pytest.mark.parametrize("source", ["environment", ".env"])
@pytest.mark.parametrize("name", ["HOLD_TTL_SECONDS", "STRIPE_API_BASE", "WEB_THREADS", "ORDER_SERVICE_URL"])
def test_setting_that_does_not_reach_the_stack_is_listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, name: str
) -> None:
    monkeypatch.setattr(variables, "ROOT", tmp_path)
    (tmp_path / "services").symlink_to(ROOT / "services")
    (tmp_path / ".env.example").write_text("RATE_LIMIT_PER_MINUTE=600\n")
    if source == "environment":
        monkeypatch.setenv(name, "8")
        monkeypatch.setenv("LOG_LEVEL", DEMO["LOG_LEVEL"])
    else:
        (tmp_path / ".env").write_text(f"{name}=8\nRATE_LIMIT_PER_MINUTE=600\nUSER_PUBLIC_KEYS=of-compose\n")
    runtime.print_ignored_settings(DEMO, ())
    assert f"not used: {name} ({source}). `python -m harness up --env" in capsys.readouterr().err
    runtime.print_ignored_settings(DEMO, [name])
    assert capsys.readouterr().err == ""


@pytest.mark.claim("queue/hold-queue", "queue/definitions-file")
def test_every_expired_message_goes_to_the_release_queue() -> None:
    topology = json.loads((ROOT / "services/rabbitmq/definitions.json").read_text())
    queues = {queue["name"]: queue["arguments"] for queue in topology["queues"]}
    bound = {(b["source"], b["routing_key"]): b["destination"] for b in topology["bindings"]}
    assert bound["seat.hold.exchange", "seat.hold"] == "seat.hold.queue"
    for name in ("seat.hold.queue", "seat.release.delay.queue"):
        arguments = queues[name]
        target = arguments["x-dead-letter-exchange"], arguments["x-dead-letter-routing-key"]
        assert bound[target] == "seat.release.queue"
        assert arguments["x-dead-letter-strategy"] == "at-least-once"
        assert arguments["x-overflow"] == "reject-publish"  # without it at-least-once falls back to at-most-once
    assert queues["seat.hold.queue"]["x-message-ttl"] == 300_000
    assert {arguments["x-queue-type"] for arguments in queues.values()} == {"quorum"}
    assert "seat.release.parking.queue" in queues
