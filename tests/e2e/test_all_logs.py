"""What everybody has logged during the whole session: the fields of §13, and no secret (issue 2). Runs last."""

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

from harness.api_client import PASSWORD
from tests.support.inserts import HASH
from tests.support.system import SERVICES, TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("played")]

OURS = (*SERVICES, "api-gateway", "fake-smu", "fake-stripe")
LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
ENVIRONMENT_SECRETS = re.compile("SECRET|PASS|KEY")
RUN = re.compile(r"[A-Za-z0-9]+")
ALONE = re.compile(r"(?<![\w.-])\w{4,7}(?![\w.-])")
FIVE_MINUTES = 305  # and the seconds for which the sweeper leaves a hold to its message
CODE = 8  # characters; what is shorter is a code, and counts only where it stands alone


@pytest.fixture(scope="module")
def played(system: TestSystem) -> None:
    """Every kind of secret is used at least once, when this module runs alone as well."""
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
        assert system.person(flagged=True).reserve(system.seat()).status == 503, "what was held is given back"
    release_a_seat(system)


def release_a_seat(system: TestSystem) -> None:
    """A hold runs out, unless one has in this session."""
    said = partial(system.log_lines, "inventory-service", "Auto-released seat")
    if not said():
        system.hold_seat(system.person())
        with system.clock("seats_db", FIVE_MINUTES):
            system.wait_until("the sweeper says so", said)


def logs(system: TestSystem) -> list[Path]:
    """Every log file of the stack, broker and database included."""
    for name in system.stack.names:
        system.stack.log_path(name)  # which fetches a container's
    return sorted(system.stack.run_dir.logs.glob("*.log"))


def lines_of(system: TestSystem, service: str) -> Iterable[str]:
    """A service's log, line by line."""
    return system.stack.log_path(service).read_text(encoding="utf-8", errors="replace").splitlines()


def secrets(system: TestSystem) -> set[str]:
    """Every secret that anybody used: tokens, codes, tickets, passwords, and the keys of the processes."""
    from_environment = {
        value
        for name in system.stack.names
        for variable, value in system.env(name).items()
        if ENVIRONMENT_SECRETS.search(variable) and value
    }
    numbers = {phone.lstrip("+") for phone in system.phones} | {"6591234567", "6591234568", "6591234569"}
    return system.secrets | codes(system) | from_environment | numbers | {PASSWORD, HASH}


def codes(system: TestSystem) -> set[str]:
    """Every code that the fake SMU sent."""
    stored = system.smu.read("snapshot")["store"]["verifications"]
    return {verification["code"] for verification in stored.values()}


def core(secret: str) -> str:
    """The longest run of letters and digits in a secret: where the secret is, its core is a run of the text."""
    return str(max(RUN.findall(secret), key=len, default=secret))


@pytest.mark.claim("log/json-fields", "log/standard-streams")
@pytest.mark.parametrize("service", OURS)
def test_every_line_is_json_with_the_fields_of_the_reference(system: TestSystem, service: str) -> None:
    seen = 0
    for text in lines_of(system, service):
        line: dict[str, Any] = json.loads(text)
        assert {"timestamp", "level", "service", "correlation_id", "message"} <= line.keys(), text
        assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None, text
        assert line["level"] in LEVELS, text
        assert line["service"] == service, text
        seen += 1
    assert seen


@pytest.mark.claim("log/debug-level", "log/info-level", "log/incoming-request")
@pytest.mark.parametrize("service", SERVICES)
def test_a_request_is_logged_with_its_correlation_id_and_nothing_is_said_at_debug(
    system: TestSystem, service: str
) -> None:
    lines = [json.loads(text) for text in lines_of(system, service)]
    assert "DEBUG" not in {line["level"] for line in lines}
    requests = [line for line in lines if re.match(r"(GET|POST|PATCH) /", line["message"])]
    assert requests
    assert {line["level"] for line in requests} == {"INFO"}
    for line in requests:
        UUID(line["correlation_id"])


def logged(service: str, event: str, level: str, *claims: str) -> Any:
    """A line of §13's table, and the claims that it is."""
    return pytest.param(service, event, level, marks=pytest.mark.claim(*claims))


@pytest.mark.parametrize(
    ("service", "event", "level"),
    [
        logged("orchestrator-service", "POST /api/reserve", "INFO", "log/incoming-request"),
        logged("orchestrator-service", "→ Inventory gRPC ReserveSeat", "INFO", "log/outgoing-call"),
        logged("orchestrator-service", "← Inventory OK in", "INFO", "log/response-time"),
        logged("inventory-service", "HELD for user", "INFO", "log/business-event"),
        logged("inventory-service", "status: HELD → SOLD", "INFO", "log/state-change"),
        logged("order-service", "status: PENDING → CONFIRMED", "INFO", "log/state-change"),
        logged("user-service", "Charged", "INFO", "log/business-event"),
        logged("orchestrator-service", "Compensating: ", "WARNING", "log/compensation"),
        logged("inventory-service", "Auto-released seat", "WARNING", "log/automatic-release", "log/warning-level"),
    ],
)
def test_what_the_reference_wants_logged_is_logged_at_its_level(
    system: TestSystem, service: str, event: str, level: str
) -> None:
    assert {line["level"] for line in system.log_lines(service) if event in line["message"]} == {level}


def given_away(text: str, looked_for: set[str]) -> set[str]:
    """The secrets that stand in a text."""
    cores = {core(secret): secret for secret in looked_for if len(secret) >= CODE}
    short = {secret for secret in looked_for if len(secret) < CODE}
    long = {cores[run] for run in cores.keys() & set(RUN.findall(text)) if cores[run] in text}
    return long | short & set(ALONE.findall(text))


@pytest.mark.parametrize("kind", ["token", "code", "phone", "password", "key", "qr"])
@pytest.mark.negative_control
def test_a_secret_that_is_logged_would_be_found(system: TestSystem, kind: str) -> None:
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
    for line in (f"told {secret}", f'{{"message": "sent {secret}, as asked"}}', f"Bearer {secret}", f"to=+{secret};"):
        assert given_away(line, {secret, "another secret"}) == {secret}
    assert not given_away("00000000-0000-4000-8000-000000042917 in 1042917.3 ms", {secret})


def test_no_secret_and_no_whole_phone_number_is_in_any_log_line(system: TestSystem) -> None:
    looked_for = secrets(system)
    assert len(looked_for) > 20
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in logs(system)}
    found = [
        (path.name, secret, around(text, secret))
        for path, text in texts.items()
        for secret in given_away(text, looked_for)
    ]
    assert not found


def around(text: str, secret: str) -> str:
    """The line that gives a secret away."""
    return next(line for line in text.splitlines() if secret in line)[:300]


def test_nothing_failed_that_nobody_expected(system: TestSystem) -> None:
    unhandled = [
        (service, line["message"], line.get("exception", "")[-400:])
        for service in SERVICES
        for line in system.log_lines(service, "exception")
        if line.get("exception") or line["message"].startswith("unhandled")
    ]
    assert not unhandled
