"""Access rules of users: refresh tokens, roles, bodies that name another user, and logout."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from harness.api_client import NEW_PASSWORD
from harness.runtime.process import wait_for
from tests.support.concurrency import outcomes
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

ADMITTED, REFUSED = [200, 200], [401, 401]
WITHIN_SECONDS = 1.0
STALE = "Could not check whether this session was revoked"


def log_in(system: TestSystem) -> Person:
    """Log a new user in through the gateway."""
    return system.visitor().login(system.person().email)


def call_each_service(system: TestSystem, person: Person) -> list[int]:
    """Return the status of a read at each service that follows the revoked logins of User."""
    paths = {"orchestrator-service": "/api/orders", "event-service": "/api/events"}
    return [
        system.visitor(system.stack.url(service)).call("GET", path, token=person.token).status
        for service, path in paths.items()
    ]


@pytest.mark.claim(
    "token/login-checks-password", "token/refresh-gives-access", "testing/login-examples", "token/refresh-without-login"
)
def test_register_login_and_refresh_open_the_api(system: TestSystem) -> None:
    email = f"new-{time.time_ns()}@example.com"
    phone = system.person().phone
    system.visitor().post("/api/auth/register", {"email": email, "phone": phone, "password": NEW_PASSWORD}).must(201)
    again = system.visitor().post(
        "/api/auth/register", {"email": email.upper(), "phone": phone, "password": NEW_PASSWORD}
    )
    assert outcomes([again]) == {"409 EMAIL_ALREADY_EXISTS": 1}
    wrong = system.visitor().post("/api/auth/login", {"email": email, "password": "another password"})
    assert outcomes([wrong]) == {"401 UNAUTHORIZED": 1}
    person = system.visitor().login(email, NEW_PASSWORD)
    assert person.balance() == 0
    renewed = person.call("POST", "/api/auth/refresh", token=person.refresh_token).must(200)
    assert renewed["access_token"] != person.token
    assert person.call("GET", "/api/orders", token=renewed["access_token"]).status == 200


@pytest.mark.claim("token/type", "token/refresh-gives-access")
def test_an_access_token_does_not_refresh(system: TestSystem) -> None:
    assert outcomes([system.person().post("/api/auth/refresh")]) == {"401 UNAUTHORIZED": 1}


@pytest.mark.claim("token/names-user-and-role", "reserve/post-reserve", "gate/post-verify")
def test_a_body_that_names_another_user_is_refused(system: TestSystem) -> None:
    person, other, third, staff = system.person(), system.person(), system.person(), system.staff()
    seat = system.seat()
    answers = [
        person.post("/api/reserve", {"seat_id": seat, "user_id": other.user_id}),
        staff.post("/api/verify", {"qr_payload": "AAAA", "hall_id": "HALL-B", "staff_id": other.user_id}),
        third.initiate(system.insert_ticket(person), person.user_id, other.user_id, 10),
    ]
    assert outcomes(answers) == {"403 FORBIDDEN": 3}
    assert system.seat_status(seat) == "AVAILABLE"
    assert person.post("/api/reserve", {"seat_id": seat, "user_id": person.user_id}).status == 200


@pytest.mark.claim("token/logout-revokes")
def test_logout_revokes_both_tokens_within_a_second(system: TestSystem) -> None:
    """Every service refuses the access token, and User refuses the refresh token. Other logins stay valid."""
    person = log_in(system)
    elsewhere = system.visitor().login(person.email)
    assert call_each_service(system, person) == ADMITTED
    person.post("/api/auth/logout").must(200)
    ended = time.monotonic()
    wait_for(lambda: call_each_service(system, person) == REFUSED or time.monotonic() > ended + WITHIN_SECONDS, 5)
    assert call_each_service(system, person) == REFUSED
    assert outcomes([person.reserve(system.seat()), person.post("/api/auth/logout")]) == {"401 UNAUTHORIZED": 2}
    refreshed = person.call("POST", "/api/auth/refresh", token=person.refresh_token)
    assert outcomes([refreshed]) == {"401 UNAUTHORIZED": 1}
    assert elsewhere.get("/api/orders").status == 200, "another login of the same account is valid"


def test_stale_revocations_stop_money_but_not_the_gate(system: TestSystem) -> None:
    """Flows that move credits return 503 while the list of revoked logins is stale. Scans and reads continue."""
    buyer, owner, staff = system.person(), system.person(), system.staff()
    seat, qr = system.seat(), owner.qr(system.insert_ticket(owner)).must()["qr_payload"]
    with closing(system.connect("users_db")) as locker, locker.cursor() as cursor:
        locker.autocommit = False
        cursor.execute("LOCK TABLE revoked_logins IN ACCESS EXCLUSIVE MODE")
        system.wait_until("pays are refused", lambda: STALE in str(buyer.pay(seat).body), 10)
        answers = [buyer.reserve(seat), buyer.top_up(10), buyer.transfer("cancel", seat), staff.refund(seat)]
        assert outcomes(answers) == {"503 SERVICE_UNAVAILABLE": 4}
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)
        assert staff.scan(qr, "HALL-B").must(200)["result"] == "SUCCESS"
        assert buyer.get("/api/orders").status == 200
        locker.rollback()
    system.wait_until("pays are accepted again", lambda: STALE not in str(buyer.pay(seat).body), 10)
    assert outcomes([buyer.reserve(seat)]) == {"200": 1}
    warned = system.log_lines("orchestrator-service", "the list of revoked sessions is stale")
    assert {line["level"] for line in warned} == {"WARNING"}
