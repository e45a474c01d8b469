"""Access policies: roles, revoked sessions, a stale revocation list, and service credentials."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from flask import Response
from flask.testing import FlaskClient

from services.chassis import access, tokens, web
from services.chassis.clients import HttpPeer
from services.chassis.errors import ConfigurationError, Unknown
from services.chassis.revocations import POLL_SECONDS, RevocationPoller
from tests.support.service_settings import credential_headers, make_credential, process_settings, user_token
from tests.support.stubs import check_response

pytestmark = pytest.mark.unit

SETTINGS = process_settings("user-service")


@dataclass
class RevocationList:
    """A list of revoked sessions with an age in seconds."""

    revoked: tuple[str, ...] = ()
    seconds: float = 0.0
    role: str | None = "staff"
    is_away: bool = False

    def is_revoked(self, sid: str) -> bool:
        return sid in self.revoked

    def age(self) -> float:
        return self.seconds

    def find_role(self, _user_id: UUID, _sid: str) -> str | None:
        if self.is_away:
            raise Unknown("User does not answer")
        return self.role


@contextmanager
def _run_service(revocations: access.Revocations) -> Iterator[FlaskClient]:
    app = web.create_app(SETTINGS, checks={}, revocations=revocations)

    policies = {
        "pay": access.paying_customer,
        "look": access.customer,
        "scan": access.staff,
        "decide": access.deciding_staff,
        "admit": access.gate_staff,
        "settle": access.support_staff,
        "refund": access.finance_staff,
        "inside": access.internal("order-service"),
    }
    for name, policy in policies.items():
        app.add_url_rule(f"/{name}", name, policy(_make_view()))
    yield web.finish(app).test_client()


def _make_view() -> Callable[[], Response]:
    return lambda: web.ok({})


def _token(role: str = "customer", sid: str = "login", kind: str = "access") -> dict[str, str]:
    return {"Authorization": f"Bearer {user_token(uuid4(), role, sid, kind)}"}


def _get_statuses(revocations: RevocationList, headers: dict[str, str], *paths: str) -> list[int]:
    with _run_service(revocations) as client:
        return [client.get(path, headers=headers).status_code for path in paths]


def test_a_role_may_call_only_its_own_routes() -> None:
    assert _get_statuses(RevocationList(), _token("customer"), "/pay", "/look", "/scan") == [200, 200, 403]
    assert _get_statuses(RevocationList(), _token("staff"), "/pay", "/look", "/scan") == [403, 403, 200]


def test_a_revoked_session_is_refused() -> None:
    assert _get_statuses(RevocationList(revoked=("login",)), _token(), "/pay", "/look") == [401, 401]
    assert _get_statuses(RevocationList(revoked=("another",)), _token(), "/pay", "/look") == [200, 200]


def test_a_stale_revocation_list_blocks_only_strict_routes() -> None:
    assert _get_statuses(RevocationList(seconds=4.9), _token(), "/pay", "/look") == [200, 200]
    assert _get_statuses(RevocationList(seconds=5.1), _token(), "/pay", "/look") == [503, 200]


def test_role_of_staff_is_the_current_one() -> None:
    """A demotion, a lock and a deletion take effect at once, although the role in the token is staff."""
    assert _get_statuses(RevocationList(), _token("staff"), "/scan", "/decide", "/look") == [200, 200, 403]
    assert _get_statuses(RevocationList(role="customer"), _token("staff"), "/scan", "/decide", "/look") == [
        403,
        403,
        200,
    ]
    assert _get_statuses(RevocationList(role=None), _token("staff"), "/scan", "/decide", "/look") == [401, 401, 401]
    assert _get_statuses(RevocationList(is_away=True), _token("staff"), "/scan", "/decide") == [200, 503]
    assert _get_statuses(RevocationList(is_away=True), _token("customer"), "/look", "/pay") == [200, 200]


@pytest.mark.parametrize(
    ("role", "statuses"),
    [
        ("staff", [200, 200, 200, 200]),
        ("staff:gate", [200, 403, 403, 200]),
        ("staff:support", [403, 200, 403, 200]),
        ("staff:finance", [403, 403, 200, 200]),
    ],
)
def test_limited_staff_may_call_only_their_area(role: str, statuses: list[int]) -> None:
    paths = ("/admit", "/settle", "/refund", "/scan")
    assert _get_statuses(RevocationList(role=role), _token("staff"), *paths) == statuses


def test_a_refresh_token_is_not_an_access_token() -> None:
    assert _get_statuses(RevocationList(), _token(kind="refresh"), "/pay", "/look") == [401, 401]


def test_an_internal_route_accepts_only_its_named_services() -> None:
    named, other = (credential_headers(f"{name}-service", "user-service") for name in ("order", "event"))
    assert _get_statuses(RevocationList(), named, "/inside", "/look") == [200, 401]
    assert _get_statuses(RevocationList(), other, "/inside") == [403]
    assert _get_statuses(RevocationList(), _token("staff"), "/inside") == [401]


def test_a_route_without_a_policy_prevents_the_start() -> None:
    app = web.create_app(SETTINGS, checks={})
    app.add_url_rule("/bare", "bare", lambda: web.ok({}))
    with pytest.raises(ConfigurationError, match="bare"):
        web.finish(app)


def test_logout_that_user_cannot_report_is_unknown_for_5_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits that the answer of a logout documents."""
    clock, is_away = [1000.0], False

    def respond(
        method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        if is_away:
            raise ConnectionRefusedError
        page = b'{"success":true,"data":{"revocations":[],"cursor":0,"cursor_sid":"","more":false}}'
        return check_response("user", method, url, 200, page)

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    peer = HttpPeer("User", "http://user", make_credential("order-service", "user-service"), respond)
    revocations = RevocationPoller(peer)
    assert not revocations.poll()
    is_away = True
    caller = _token()
    with _run_service(revocations) as client:
        for seconds, expected in ((1.5, [200, 200]), (3.4, [200, 200]), (0.2, [503, 200]), (600, [503, 200])):
            clock[0] += seconds
            with pytest.raises(Unknown):
                revocations.poll()
            assert [client.get(path, headers=caller).status_code for path in ("/pay", "/look")] == expected


def test_answer_of_a_logout_states_the_limits_of_the_code() -> None:
    description = " ".join(_read_logout()["responses"]["200"]["description"].split())
    assert f"up to {access.STALE_AFTER:g} more seconds" in description
    assert f"at most {tokens.ACCESS_SECONDS // 60} minutes" in description
    assert POLL_SECONDS <= 0.5, "a poll and its call must fit into the documented second"


def _read_logout() -> Any:
    spec = yaml.load((Path(__file__).parents[3] / "specs/gateway.yaml").read_text(), yaml.CSafeLoader)
    return spec["paths"]["/api/auth/logout"]["post"]
