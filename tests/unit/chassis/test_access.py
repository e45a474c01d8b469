"""Who may call a route: role, ended login, stale news of logins, service credential; on an app of two routes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import pytest
from flask import Response
from flask.testing import FlaskClient

from services.chassis import access, tokens, web
from services.chassis.errors import ConfigurationError
from services.chassis.settings import ProcessSettings

pytestmark = pytest.mark.unit

SECRET, INTERNAL = "j" * 32, "i" * 32
SETTINGS = ProcessSettings("test-service", 1, "127.0.0.1", SECRET, INTERNAL, "INFO", 4)


@dataclass
class Logins:
    """A list of ended logins, this many seconds old."""

    ended: tuple[str, ...] = ()
    seconds: float = 0.0

    def is_revoked(self, sid: str) -> bool:
        return sid in self.ended

    def age(self) -> float:
        return self.seconds


@contextmanager
def _service(logins: Logins) -> Iterator[FlaskClient]:
    app = web.create_app(SETTINGS, checks={}, revocations=logins)

    policies = {
        "pay": access.paying_customer,
        "look": access.customer,
        "scan": access.staff,
        "inside": access.internal("order-service"),
    }
    for name, policy in policies.items():
        app.add_url_rule(f"/{name}", name, policy(_view()))
    yield web.finish(app).test_client()


def _view() -> Callable[[], Response]:
    return lambda: web.ok({})


def _token(role: str = "customer", sid: str = "login", kind: str = "access") -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens.issue(SECRET, uuid4(), role, sid, kind)}"}


def _statuses(logins: Logins, headers: dict[str, str], *paths: str) -> list[int]:
    with _service(logins) as client:
        return [client.get(path, headers=headers).status_code for path in paths]


def test_a_role_opens_its_own_routes_only() -> None:
    assert _statuses(Logins(), _token("customer"), "/pay", "/look", "/scan") == [200, 200, 403]
    assert _statuses(Logins(), _token("staff"), "/pay", "/look", "/scan") == [403, 403, 200]


def test_an_ended_login_opens_nothing() -> None:
    assert _statuses(Logins(ended=("login",)), _token(), "/pay", "/look") == [401, 401]
    assert _statuses(Logins(ended=("another",)), _token(), "/pay", "/look") == [200, 200]


def test_without_news_of_ended_logins_money_waits_and_looking_goes_on() -> None:
    assert _statuses(Logins(seconds=4.9), _token(), "/pay", "/look") == [200, 200]
    assert _statuses(Logins(seconds=5.1), _token(), "/pay", "/look") == [503, 200]


def test_a_refresh_token_opens_nothing() -> None:
    assert _statuses(Logins(), _token(kind="refresh"), "/pay", "/look") == [401, 401]


def test_an_internal_route_is_for_the_services_that_it_names() -> None:
    named, other = (tokens.Credential(f"{name}-service", INTERNAL).header() for name in ("order", "event"))
    assert _statuses(Logins(), {"Authorization": named}, "/inside", "/look") == [200, 401]
    assert _statuses(Logins(), {"Authorization": other}, "/inside") == [403]
    assert _statuses(Logins(), _token("staff"), "/inside") == [401]


def test_a_route_without_a_policy_keeps_the_service_from_starting() -> None:
    app = web.create_app(SETTINGS, checks={})
    app.add_url_rule("/bare", "bare", lambda: web.ok({}))
    with pytest.raises(ConfigurationError, match="bare"):
        web.finish(app)
