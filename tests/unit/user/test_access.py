"""The callers of every internal route, error envelopes, health and settings."""

from __future__ import annotations

import pytest

from services.chassis import tokens
from services.chassis.errors import ConfigurationError
from services.chassis.settings import Env
from services.user.settings import Settings
from tests.support.service_settings import USER_KEY, key_environment, make_credential, user_token
from tests.unit.user.user_app import UserApp, error_code

pytestmark = pytest.mark.unit

SERVICES = [f"{name}-service" for name in ("orchestrator", "order", "inventory", "event", "user")]
USER = "00000000-0000-0000-0000-000000000001"
ORCHESTRATOR_ONLY = [
    ("GET", f"/users/{USER}"), ("GET", f"/users/{USER}/risk"),
    ("POST", "/credits/check"), ("POST", "/credits/deduct"), ("POST", "/credits/refund"), ("POST", "/credits/freeze"),
    ("POST", "/credits/unfreeze"), ("POST", "/credits/transfer"), ("POST", "/credits/topup"),
    ("POST", "/otp/send"), ("POST", "/otp/verify"), ("POST", "/notifications"), ("GET", "/staff-commands"),
    ("POST", "/effects/list"),
]  # fmt: skip
FOR_EVENT = [("GET", "/auth/revocations"), ("GET", f"/users/{USER}/role")]
INTERNAL = [*ORCHESTRATOR_ONLY, *FOR_EVENT]


@pytest.mark.parametrize("caller", SERVICES)
@pytest.mark.parametrize(("method", "path"), INTERNAL)
def test_internal_route_allows_only_its_callers(users: UserApp, method: str, path: str, caller: str) -> None:
    is_poller = (method, path) in FOR_EVENT and caller == "event-service"
    status = users.call(method, path, caller=caller).status_code
    assert (status == 401) == (caller == "user-service")  # its key signs user tokens only
    assert (status in (401, 403)) != (is_poller or caller == "orchestrator-service")


@pytest.mark.parametrize(("method", "path"), INTERNAL)
def test_internal_route_needs_a_service_credential(users: UserApp, method: str, path: str) -> None:
    staff_token = user_token(users.new_user(), "staff")
    forged = tokens.Credential("orchestrator-service", USER_KEY, "user-service").header()
    for header in ({}, {"Authorization": f"Bearer {staff_token}"}, {"Authorization": forged}):
        assert users.call_public(method, path, **header).status_code == 401


def test_service_credential_is_not_a_user_token(users: UserApp) -> None:
    credential = make_credential("orchestrator-service", "user-service").header()
    assert users.call_public("POST", "/api/auth/logout", Authorization=credential).status_code == 401


def test_every_route_is_in_these_tests(users: UserApp) -> None:
    """A new internal route must be added to the lists above."""
    public = {f"/api/auth/{name}" for name in ("register", "login", "refresh", "logout", "logins", "logout-everywhere")}
    public |= {f"/api/auth/password{end}" for end in ("", "/reset", "/reset/confirm")} | {"/api/webhooks/stripe"}
    public |= {f"/api/auth/users/{USER}/{name}" for name in ("logout", "lock", "unlock")}
    frame = {"/health", "/health/live", "/metrics"}
    routes = {rule.rule.replace("<user_id>", USER) for rule in users.app.url_map.iter_rules()}
    assert routes == public | frame | {path for _, path in INTERNAL}


@pytest.mark.parametrize("path", ["/users/nobody", "/users/nobody/risk", "/users/%00"])
def test_invalid_id_is_invalid_uuid(users: UserApp, path: str) -> None:
    answer = users.call("GET", path)
    assert (answer.status_code, error_code(answer)) == (400, "INVALID_UUID")


@pytest.mark.claim("schema/users.is_flagged", "otp/checks-buyer-flag")
def test_risk_returns_the_flag(users: UserApp) -> None:
    flags = [users.call("GET", f"/users/{USER[:-1]}{last}/risk").get_json()["data"]["is_flagged"] for last in "12"]
    assert flags == [False, True]


def test_unknown_user_is_404(users: UserApp) -> None:
    assert error_code(users.call("GET", f"/users/{USER[:-1]}7")) == "USER_NOT_FOUND"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/credits/deduct", 405)])
def test_unknown_route_has_the_error_envelope(users: UserApp, method: str, path: str, status: int) -> None:
    answer = users.call(method, path)
    assert answer.status_code == status
    assert error_code(answer) in ("NOT_FOUND", "METHOD_NOT_ALLOWED")


def test_health_checks_the_database(users: UserApp) -> None:
    answer = users.call_public("GET", "/health")
    assert (answer.status_code, answer.get_json()["checks"]) == (200, {"database": "ok"})


ENVIRONMENT = {
    **key_environment("user-service"), "DB_HOST": "db", "DB_NAME": "users_db", "DB_USER": "u",
    "DB_PASS": "p", "SMU_API_URL": "http://smu/", "SMU_API_KEY": "k", "STRIPE_SECRET_KEY": "sk",
    "STRIPE_WEBHOOK_SECRET": "whsec", "STRIPE_API_BASE": "http://stripe",
}  # fmt: skip


def test_settings_are_read_and_hide_secrets() -> None:
    settings = Settings.read(Env(ENVIRONMENT))
    assert (settings.process.port, settings.smu_url, settings.stripe_base) == (5000, "http://smu", "http://stripe")
    assert not {"sk", "whsec", "'k'", "j" * 32} & set(repr(settings).replace(",", " ").split())


@pytest.mark.parametrize(
    "name", ["SMU_API_URL", "SMU_API_KEY", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "DB_HOST"]
)
def test_missing_setting_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Settings.read(Env({key: value for key, value in ENVIRONMENT.items() if key != name}))


@pytest.mark.parametrize("name", ["SMU_API_URL", "STRIPE_API_BASE"])
def test_invalid_address_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Settings.read(Env(ENVIRONMENT | {name: "smu.test"}))
