"""Checks of all log lines of the session: the fields of §13, and no secret. Runs after all other modules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from harness.api_client import NEW_PASSWORD, PASSWORD
from tests.support.inserts import HASH
from tests.support.system import SERVICES, TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("use_secrets")]

OURS = (*SERVICES, "api-gateway", "fake-smu", "fake-stripe")
LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
ENVIRONMENT_SECRETS = re.compile("SECRET|PASS|KEY")
RUN = re.compile(r"[A-Za-z0-9]+")
ALONE = re.compile(r"(?<![\w.-])\w{4,7}(?![\w.-])")
FIVE_MINUTES = 305  # with the seconds that the sweeper leaves to the message of a hold
CODE = 8  # characters. A shorter secret is a code, which counts only as a separate word


@pytest.fixture(scope="module")
def use_secrets(system: TestSystem) -> None:
    """Use every kind of secret once, so that this module can run alone."""
    person = system.visitor().register()
    system.phones.add(system.rows("users_db", "SELECT phone FROM users WHERE user_id = %s", person.user_id)[0]["phone"])
    flagged, buyer, staff = system.person(flagged=True), system.person(), system.staff()
    seat, order_id = system.hold_seat(flagged)
    flagged.verify_otp("000001", order_id)
    flagged.verify_otp(system.code(flagged), order_id)
    flagged.pay(order_id).must(200)
    system.complete_transfer(flagged, buyer, seat, 10)
    buyer.top_up(10).must(200)
    staff.scan(buyer.qr(seat).must()["qr_payload"], "HALL-B").must()
    person.call("POST", "/api/auth/refresh", token=person.refresh_token).must()
    person.post("/api/auth/logout").must()
    system.buy_seat(buyer)
    buyer.get("/api/events/e0e0e0e0-0000-0000-0000-000000000001").must()
    with system.smu.fault("status", "/SendOTP"):
        assert system.person(flagged=True).reserve(system.seat()).status == 503, "the held seat is released"
    release_a_seat(system)


def release_a_seat(system: TestSystem) -> None:
    """Let a hold expire, unless one expired before in this session."""
    find_lines = partial(system.log_lines, "inventory-service", "Auto-released seat")
    if not find_lines():
        system.hold_seat(system.person())
        with system.clock("seats_db", FIVE_MINUTES):
            system.wait_until("the sweeper releases the seat", find_lines)


def list_logs(system: TestSystem) -> list[Path]:
    """List every log file of the stack, including broker and database."""
    for name in system.stack.names:
        system.stack.log_path(name)  # fetches the log of a container
    return sorted(system.stack.run_dir.logs.glob("*.log"))


def read_lines(system: TestSystem, service: str) -> Iterable[str]:
    """Read the log lines of a service."""
    return system.stack.log_path(service).read_text(encoding="utf-8", errors="replace").splitlines()


def collect_secrets(system: TestSystem) -> set[str]:
    """Collect every secret of the session: tokens, codes, tickets, passwords, phone numbers and keys."""
    from_environment = {
        value
        for name in system.stack.names
        for variable, value in system.env(name).items()
        if ENVIRONMENT_SECRETS.search(variable) and value
    }
    numbers = {phone.lstrip("+") for phone in system.phones} | {"6591234567", "6591234568", "6591234569"}
    return system.secrets | collect_codes(system) | from_environment | numbers | {NEW_PASSWORD, PASSWORD, HASH}


def collect_codes(system: TestSystem) -> set[str]:
    """Collect every code that the fake SMU sent."""
    stored = system.smu.read("snapshot")["store"]["verifications"]
    return {verification["code"] for verification in stored.values()}


def find_core(secret: str) -> str:
    """Return the longest run of letters and digits in a secret. A text with the secret contains this run."""
    return str(max(RUN.findall(secret), key=len, default=secret))


@pytest.mark.claim("log/json-fields", "log/standard-streams")
@pytest.mark.parametrize("service", OURS)
def test_every_line_is_json_with_the_required_fields(system: TestSystem, service: str) -> None:
    lines = list(read_lines(system, service))
    assert lines
    for text in lines:
        line: dict[str, Any] = json.loads(text)
        assert {"timestamp", "level", "service", "correlation_id", "message"} <= line.keys(), text
        assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None, text
        assert line["level"] in LEVELS, text
        assert line["service"] == service, text


@pytest.mark.claim("log/debug-level", "log/info-level", "log/incoming-request")
@pytest.mark.parametrize("service", SERVICES)
def test_requests_are_logged_with_their_correlation_id(system: TestSystem, service: str) -> None:
    """Each request is logged at INFO, and no service logs at DEBUG."""
    lines = [json.loads(text) for text in read_lines(system, service)]
    assert "DEBUG" not in {line["level"] for line in lines}
    requests = [line for line in lines if re.match(r"(GET|POST|PATCH) /", line["message"])]
    assert requests
    assert {line["level"] for line in requests} == {"INFO"}
    for line in requests:
        UUID(line["correlation_id"])


def make_case(service: str, event: str, level: str, *claims: str) -> Any:
    """Make a test case of a row in the table of §13, with its claims."""
    return pytest.param(service, event, level, marks=pytest.mark.claim(*claims))


@pytest.mark.parametrize(
    ("service", "event", "level"),
    [
        make_case("orchestrator-service", "POST /api/reserve", "INFO", "log/incoming-request"),
        make_case("orchestrator-service", "→ Inventory gRPC ReserveSeat", "INFO", "log/outgoing-call"),
        make_case("orchestrator-service", "← Inventory OK in", "INFO", "log/response-time"),
        make_case("inventory-service", "HELD for user", "INFO", "log/business-event"),
        make_case("inventory-service", "status: HELD → SOLD", "INFO", "log/state-change"),
        make_case("order-service", "status: PENDING → CONFIRMED", "INFO", "log/state-change"),
        make_case("user-service", "Charged", "INFO", "log/business-event"),
        make_case("orchestrator-service", "Compensating: ", "WARNING", "log/compensation"),
        make_case("inventory-service", "Auto-released seat", "WARNING", "log/automatic-release", "log/warning-level"),
    ],
)
def test_each_required_event_is_logged_at_its_level(system: TestSystem, service: str, event: str, level: str) -> None:
    assert {line["level"] for line in system.log_lines(service) if event in line["message"]} == {level}


def find_secrets(text: str, secrets: set[str]) -> set[str]:
    """Return the secrets that a text contains."""
    cores = {find_core(secret): secret for secret in secrets if len(secret) >= CODE}
    short = {secret for secret in secrets if len(secret) < CODE}
    long = {cores[run] for run in cores.keys() & set(RUN.findall(text)) if cores[run] in text}
    return long | short & set(ALONE.findall(text))


@pytest.mark.parametrize("kind", ["token", "code", "phone", "password", "key", "qr"])
@pytest.mark.negative_control
def test_a_logged_secret_is_found(system: TestSystem, kind: str) -> None:
    person = system.person()
    made = {
        "token": person.token,
        "code": "042917",
        "phone": person.phone.lstrip("+"),
        "password": PASSWORD,
        "key": system.env("orchestrator-service")["QR_ENCRYPTION_KEY"],
        "qr": person.qr(system.insert_ticket(person)).must()["qr_payload"],
    }
    secret = str(made[kind])
    for line in (
        f"code {secret}",
        f'{{"message": "sent {secret}, as requested"}}',
        f"Bearer {secret}",
        f"to=+{secret};",
    ):
        assert find_secrets(line, {secret, "another secret"}) == {secret}
    assert not find_secrets("00000000-0000-4000-8000-000000042917 in 1042917.3 ms", {secret})


def test_no_secret_or_phone_number_is_in_any_log_line(system: TestSystem) -> None:
    secrets = collect_secrets(system)
    assert len(secrets) > 20
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in list_logs(system)}
    found = [
        (path.name, secret, find_line(text, secret))
        for path, text in texts.items()
        for secret in find_secrets(text, secrets)
    ]
    assert not found


def find_line(text: str, secret: str) -> str:
    """Return the beginning of the line that contains a secret."""
    return next(line for line in text.splitlines() if secret in line)[:300]


def test_no_service_logged_an_unhandled_exception(system: TestSystem) -> None:
    unhandled = [
        (service, line["message"], line.get("exception", "")[-400:])
        for service in SERVICES
        for line in system.log_lines(service, "exception")
        if line.get("exception") or line["message"].startswith("unhandled")
    ]
    assert not unhandled
