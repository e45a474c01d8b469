"""Who may call what: refresh tokens, roles, other people's names, ended logins (issues 2 and 3)."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from harness.api_client import PASSWORD
from harness.runtime.process import wait_for
from services.contracts.enums import Role
from tests.e2e import surface
from tests.e2e.at_once import outcomes
from tests.e2e.people import Person, credential, token
from tests.e2e.surface import Route
from tests.e2e.town import Town

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

FOR_USERS = [route for route in surface.public() if route.for_users]
# Said here once more, not read off the services: whom they admit is what is being tested.
STAFFS = {"POST /api/verify", "POST /api/orders/<order_id>/refund", "POST /api/transfer/reverse"}
STAFFS |= {"POST /api/transfer/dismiss"}
EVERYBODYS = {"POST /api/auth/logout", "GET /api/events", "GET /api/events/<event_id>"}
ADMITTED, REFUSED = [200, 200], [401, 401]
WITHIN_SECONDS = 1.0
STALE = "It cannot be told whether this login still stands"


def logged_in(town: Town) -> Person:
    """Somebody who has come in through the front door."""
    return town.visitor().login(town.person().email)


def at_each_service(town: Town, who: Person) -> list[int]:
    """What a plain question is answered by those who follow User's list of ended logins."""
    asked = {"orchestrator-service": "/api/orders", "event-service": "/api/events"}
    return [
        town.visitor(town.stack.url(service)).call("GET", path, token=who.token).status
        for service, path in asked.items()
    ]


@pytest.mark.claim("11.life.1", "11.life.3", "15.tools.9", "11.library.4")
def test_registering_logging_in_and_refreshing_opens_the_api(town: Town) -> None:
    email = f"new-{time.time_ns()}@example.com"
    phone = town.person().phone
    town.visitor().post("/api/auth/register", {"email": email, "phone": phone, "password": PASSWORD}).must(201)
    again = town.visitor().post("/api/auth/register", {"email": email.upper(), "phone": phone, "password": PASSWORD})
    assert outcomes([again]) == {"409 EMAIL_ALREADY_EXISTS": 1}
    wrong = town.visitor().post("/api/auth/login", {"email": email, "password": "another password"})
    assert outcomes([wrong]) == {"401 UNAUTHORIZED": 1}
    person = town.visitor().login(email)
    assert person.balance() == 0
    renewed = person.call("POST", "/api/auth/refresh", token=person.refresh_token).must(200)
    assert renewed["access_token"] != person.token
    assert person.call("GET", "/api/orders", token=renewed["access_token"]).status == 200


@pytest.mark.claim("11.claims.5")
@pytest.mark.parametrize("route", FOR_USERS, ids=str)
def test_a_refresh_token_opens_nothing_but_refresh(town: Town, route: Route) -> None:
    secret = town.env("user-service")["JWT_SECRET"]
    for role in Role:
        refresh = token(secret, town.person(role=role).user_id, role, "refresh")
        answer = town.visitor().call(route.method, route.path, token=refresh)
        assert outcomes([answer]) == {"401 UNAUTHORIZED": 1}


@pytest.mark.claim("11.claims.5", "11.life.3")
def test_an_access_token_does_not_refresh(town: Town) -> None:
    assert outcomes([town.person().post("/api/auth/refresh")]) == {"401 UNAUTHORIZED": 1}


@pytest.mark.claim("11.gateway.4", "11.claims.2")
@pytest.mark.parametrize("route", [route for route in FOR_USERS if str(route) not in STAFFS | EVERYBODYS], ids=str)
def test_customers_verbs_refuse_staff(town: Town, route: Route) -> None:
    assert outcomes([town.staff().call(route.method, route.path)]) == {"403 FORBIDDEN": 1}


@pytest.mark.claim("11.gateway.5", "11.claims.2")
@pytest.mark.parametrize("route", [route for route in FOR_USERS if str(route) in STAFFS], ids=str)
def test_staffs_verbs_refuse_customers(town: Town, route: Route) -> None:
    assert outcomes([town.person().call(route.method, route.path)]) == {"403 FORBIDDEN": 1}


def test_what_staff_may_is_there() -> None:
    assert {str(route) for route in FOR_USERS} > STAFFS | EVERYBODYS


@pytest.mark.parametrize("route", FOR_USERS, ids=str)
def test_a_services_credential_is_no_users_token(town: Town, route: Route) -> None:
    trusted = credential(town.env("user-service")["INTERNAL_JWT_SECRET"], "orchestrator-service")
    answer = town.visitor(town.stack.url(route.service)).call(route.method, route.path, token=trusted)
    assert outcomes([answer]) == {"401 UNAUTHORIZED": 1}


@pytest.mark.claim("11.library.3", "5.happy.1", "7.flow.1")
def test_a_body_that_names_somebody_else_is_refused(town: Town) -> None:
    person, other, third, staff = town.person(), town.person(), town.person(), town.staff()
    seat = town.seat()
    answers = [
        person.post("/api/reserve", {"seat_id": seat, "user_id": other.user_id}),
        staff.post("/api/verify", {"qr_payload": "AAAA", "hall_id": "HALL-B", "staff_id": other.user_id}),
        third.initiate(town.ticket(person), person.user_id, other.user_id, 10),
    ]
    assert outcomes(answers) == {"403 FORBIDDEN": 3}
    assert town.seat_status(seat) == "AVAILABLE"
    assert person.post("/api/reserve", {"seat_id": seat, "user_id": person.user_id}).status == 200


@pytest.mark.claim("11.library.5")
def test_logout_ends_access_and_refresh_token_at_every_service_within_a_second(town: Town) -> None:
    person = logged_in(town)
    elsewhere = town.visitor().login(person.email)
    assert at_each_service(town, person) == ADMITTED
    person.post("/api/auth/logout").must(200)
    ended = time.monotonic()
    wait_for(lambda: at_each_service(town, person) == REFUSED or time.monotonic() > ended + WITHIN_SECONDS, 5)
    assert at_each_service(town, person) == REFUSED
    assert outcomes([person.reserve(town.seat()), person.post("/api/auth/logout")]) == {"401 UNAUTHORIZED": 2}
    refreshed = person.call("POST", "/api/auth/refresh", token=person.refresh_token)
    assert outcomes([refreshed]) == {"401 UNAUTHORIZED": 1}
    assert elsewhere.get("/api/orders").status == 200, "another login of the same account goes on"


def test_without_news_of_ended_logins_money_waits_and_the_gate_goes_on(town: Town) -> None:
    buyer, owner, staff = town.person(), town.person(), town.staff()
    seat, qr = town.seat(), owner.qr(town.ticket(owner)).must()["qr_payload"]
    with closing(town.connect("users_db")) as locker, locker.cursor() as cursor:
        locker.autocommit = False
        cursor.execute("LOCK TABLE revoked_logins IN ACCESS EXCLUSIVE MODE")
        town.until("money waits", lambda: STALE in str(buyer.pay(seat).body), 10)
        answers = [buyer.reserve(seat), buyer.top_up(10), buyer.transfer("cancel", seat), staff.refund(seat)]
        assert outcomes(answers) == {"503 SERVICE_UNAVAILABLE": 4}
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)
        assert staff.scan(qr, "HALL-B").must(200)["result"] == "SUCCESS"
        assert buyer.get("/api/orders").status == 200
        locker.rollback()
    town.until("money moves again", lambda: STALE not in str(buyer.pay(seat).body), 10)
    assert outcomes([buyer.reserve(seat)]) == {"200": 1}
    warned = town.log_lines("orchestrator-service", "revocations are stale")
    assert {line["level"] for line in warned} == {"WARNING"}
