"""Access policies: roles, revoked sessions, a stale revocation list, and service credentials."""

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
class RevocationList:
    """A list of revoked sessions with an age in seconds."""

    revoked: tuple[str, ...] = ()
    seconds: float = 0.0

    def is_revoked(self, sid: str) -> bool:
        return sid in self.revoked

    def age(self) -> float:
        return self.seconds


@contextmanager
def _run_service(revocations: RevocationList) -> Iterator[FlaskClient]:
    app = web.create_app(SETTINGS, checks={}, revocations=revocations)

    policies = {
        "pay": access.paying_customer,
        "look": access.customer,
        "scan": access.staff,
        "inside": access.internal("order-service"),
    }
    for name, policy in policies.items():
        app.add_url_rule(f"/{name}", name, policy(_make_view()))
    yield web.finish(app).test_client()


def _make_view() -> Callable[[], Response]:
    return lambda: web.ok({})


def _token(role: str = "customer", sid: str = "login", kind: str = "access") -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens.issue(SECRET, uuid4(), role, sid, kind)}"}


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


def test_a_refresh_token_is_not_an_access_token() -> None:
    assert _get_statuses(RevocationList(), _token(kind="refresh"), "/pay", "/look") == [401, 401]


def test_an_internal_route_accepts_only_its_named_services() -> None:
    named, other = (tokens.Credential(f"{name}-service", INTERNAL).header() for name in ("order", "event"))
    assert _get_statuses(RevocationList(), {"Authorization": named}, "/inside", "/look") == [200, 401]
    assert _get_statuses(RevocationList(), {"Authorization": other}, "/inside") == [403]
    assert _get_statuses(RevocationList(), _token("staff"), "/inside") == [401]


def test_a_route_without_a_policy_prevents_the_start() -> None:
    app = web.create_app(SETTINGS, checks={})
    app.add_url_rule("/bare", "bare", lambda: web.ok({}))
    with pytest.raises(ConfigurationError, match="bare"):
        web.finish(app)
