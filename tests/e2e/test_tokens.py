"""Who may call what: refresh tokens, roles, other people's names, ended logins (issues 2 and 3)."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from harness.api_client import PASSWORD
from harness.runtime.process import wait_for
from services.contracts.enums import Role
from tests.support import endpoints
from tests.support.concurrency import outcomes
from tests.support.endpoints import Route
from tests.support.people import Person, credential, token
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

FOR_USERS = [route for route in endpoints.public() if route.for_users]
# Said here once more, not read off the services: whom they admit is what is being tested.
STAFFS = {"POST /api/verify", "POST /api/orders/<order_id>/refund", "POST /api/transfer/reverse"}
STAFFS |= {"POST /api/transfer/dismiss"}
EVERYBODYS = {"POST /api/auth/logout", "GET /api/events", "GET /api/events/<event_id>"}
ADMITTED, REFUSED = [200, 200], [401, 401]
WITHIN_SECONDS = 1.0
STALE = "Could not check whether this session was revoked"


def logged_in(system: TestSystem) -> Person:
    """Somebody who has come in through the front door."""
    return system.visitor().login(system.person().email)


def at_each_service(system: TestSystem, who: Person) -> list[int]:
    """What a plain question is answered by those who follow User's list of ended logins."""
    asked = {"orchestrator-service": "/api/orders", "event-service": "/api/events"}
    return [
        system.visitor(system.stack.url(service)).call("GET", path, token=who.token).status
        for service, path in asked.items()
    ]


@pytest.mark.claim(
    "token/login-checks-password", "token/refresh-gives-access", "testing/login-examples", "token/refresh-without-login"
)
def test_registering_logging_in_and_refreshing_opens_the_api(system: TestSystem) -> None:
    email = f"new-{time.time_ns()}@example.com"
    phone = system.person().phone
    system.visitor().post("/api/auth/register", {"email": email, "phone": phone, "password": PASSWORD}).must(201)
    again = system.visitor().post("/api/auth/register", {"email": email.upper(), "phone": phone, "password": PASSWORD})
    assert outcomes([again]) == {"409 EMAIL_ALREADY_EXISTS": 1}
    wrong = system.visitor().post("/api/auth/login", {"email": email, "password": "another password"})
    assert outcomes([wrong]) == {"401 UNAUTHORIZED": 1}
    person = system.visitor().login(email)
    assert person.balance() == 0
    renewed = person.call("POST", "/api/auth/refresh", token=person.refresh_token).must(200)
    assert renewed["access_token"] != person.token
    assert person.call("GET", "/api/orders", token=renewed["access_token"]).status == 200


@pytest.mark.claim("token/type")
@pytest.mark.parametrize("route", FOR_USERS, ids=str)
def test_a_refresh_token_opens_nothing_but_refresh(system: TestSystem, route: Route) -> None:
    secret = system.env("user-service")["JWT_SECRET"]
    for role in Role:
        refresh = token(secret, system.person(role=role).user_id, role, "refresh")
        answer = system.visitor().call(route.method, route.path, token=refresh)
        assert outcomes([answer]) == {"401 UNAUTHORIZED": 1}


@pytest.mark.claim("token/type", "token/refresh-gives-access")
def test_an_access_token_does_not_refresh(system: TestSystem) -> None:
    assert outcomes([system.person().post("/api/auth/refresh")]) == {"401 UNAUTHORIZED": 1}


@pytest.mark.claim("gateway/customer-routes", "token/role")
@pytest.mark.parametrize("route", [route for route in FOR_USERS if str(route) not in STAFFS | EVERYBODYS], ids=str)
def test_customers_verbs_refuse_staff(system: TestSystem, route: Route) -> None:
    assert outcomes([system.staff().call(route.method, route.path)]) == {"403 FORBIDDEN": 1}


@pytest.mark.claim("gateway/staff-routes", "token/role")
@pytest.mark.parametrize("route", [route for route in FOR_USERS if str(route) in STAFFS], ids=str)
def test_staffs_verbs_refuse_customers(system: TestSystem, route: Route) -> None:
    assert outcomes([system.person().call(route.method, route.path)]) == {"403 FORBIDDEN": 1}


def test_what_staff_may_is_there() -> None:
    assert {str(route) for route in FOR_USERS} > STAFFS | EVERYBODYS


@pytest.mark.parametrize("route", FOR_USERS, ids=str)
def test_a_services_credential_is_no_users_token(system: TestSystem, route: Route) -> None:
    trusted = credential(system.env("user-service")["INTERNAL_JWT_SECRET"], "orchestrator-service")
    answer = system.visitor(system.stack.url(route.service)).call(route.method, route.path, token=trusted)
    assert outcomes([answer]) == {"401 UNAUTHORIZED": 1}


@pytest.mark.claim("token/names-user-and-role", "reserve/post-reserve", "gate/post-verify")
def test_a_body_that_names_somebody_else_is_refused(system: TestSystem) -> None:
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
def test_logout_ends_access_and_refresh_token_at_every_service_within_a_second(system: TestSystem) -> None:
    person = logged_in(system)
    elsewhere = system.visitor().login(person.email)
    assert at_each_service(system, person) == ADMITTED
    person.post("/api/auth/logout").must(200)
    ended = time.monotonic()
    wait_for(lambda: at_each_service(system, person) == REFUSED or time.monotonic() > ended + WITHIN_SECONDS, 5)
    assert at_each_service(system, person) == REFUSED
    assert outcomes([person.reserve(system.seat()), person.post("/api/auth/logout")]) == {"401 UNAUTHORIZED": 2}
    refreshed = person.call("POST", "/api/auth/refresh", token=person.refresh_token)
    assert outcomes([refreshed]) == {"401 UNAUTHORIZED": 1}
    assert elsewhere.get("/api/orders").status == 200, "another login of the same account goes on"


def test_without_news_of_ended_logins_money_waits_and_the_gate_goes_on(system: TestSystem) -> None:
    buyer, owner, staff = system.person(), system.person(), system.staff()
    seat, qr = system.seat(), owner.qr(system.insert_ticket(owner)).must()["qr_payload"]
    with closing(system.connect("users_db")) as locker, locker.cursor() as cursor:
        locker.autocommit = False
        cursor.execute("LOCK TABLE revoked_logins IN ACCESS EXCLUSIVE MODE")
        system.wait_until("money waits", lambda: STALE in str(buyer.pay(seat).body), 10)
        answers = [buyer.reserve(seat), buyer.top_up(10), buyer.transfer("cancel", seat), staff.refund(seat)]
        assert outcomes(answers) == {"503 SERVICE_UNAVAILABLE": 4}
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)
        assert staff.scan(qr, "HALL-B").must(200)["result"] == "SUCCESS"
        assert buyer.get("/api/orders").status == 200
        locker.rollback()
    system.wait_until("money moves again", lambda: STALE not in str(buyer.pay(seat).body), 10)
    assert outcomes([buyer.reserve(seat)]) == {"200": 1}
    warned = system.log_lines("orchestrator-service", "revocations are stale")
    assert {line["level"] for line in warned} == {"WARNING"}
