"""Who may call what: every internal route, every caller; and what the service tells about itself."""

from __future__ import annotations

import pytest

from services.chassis import tokens
from services.chassis.errors import ConfigurationError
from services.chassis.settings import Env
from services.user.settings import Settings
from tests.unit.user.user_app import INTERNAL_SECRET, JWT_SECRET, UserApp, refusal

pytestmark = pytest.mark.unit

SERVICES = [f"{name}-service" for name in ("orchestrator", "order", "inventory", "event", "user")]
USER = "00000000-0000-0000-0000-000000000001"
ORCHESTRATOR_ONLY = [
    ("GET", f"/users/{USER}"), ("GET", f"/users/{USER}/risk"),
    ("POST", "/credits/deduct"), ("POST", "/credits/refund"), ("POST", "/credits/freeze"),
    ("POST", "/credits/unfreeze"), ("POST", "/credits/transfer"), ("POST", "/credits/topup"),
    ("POST", "/otp/send"), ("POST", "/otp/verify"), ("POST", "/notifications"),
]  # fmt: skip
INTERNAL = [*ORCHESTRATOR_ONLY, ("GET", "/auth/revocations")]


@pytest.mark.parametrize("caller", SERVICES)
@pytest.mark.parametrize(("method", "path"), INTERNAL)
def test_an_internal_call_is_for_its_callers(users: UserApp, method: str, path: str, caller: str) -> None:
    follower = path == "/auth/revocations" and caller != "user-service"
    status = users.call(method, path, caller=caller).status_code
    assert (status != 403) == (follower or caller == "orchestrator-service")


@pytest.mark.parametrize(("method", "path"), INTERNAL)
def test_an_internal_call_needs_a_service_credential(users: UserApp, method: str, path: str) -> None:
    user_token = tokens.issue(JWT_SECRET, users.new_user(), "staff", "sid", "access")
    forged = tokens.Credential("orchestrator-service", JWT_SECRET).header()
    for header in ({}, {"Authorization": f"Bearer {user_token}"}, {"Authorization": forged}):
        assert users.public(method, path, **header).status_code == 401


def test_a_service_credential_is_no_users_token(users: UserApp) -> None:
    credential = tokens.Credential("orchestrator-service", INTERNAL_SECRET).header()
    assert users.public("POST", "/api/auth/logout", Authorization=credential).status_code == 401


def test_every_route_is_covered_here(users: UserApp) -> None:
    """A new internal route has to be added to the lists above."""
    public = {"/api/auth/register", "/api/auth/login", "/api/auth/refresh", "/api/auth/logout", "/api/webhooks/stripe"}
    frame = {"/health", "/health/live", "/metrics"}
    routes = {rule.rule.replace("<user_id>", USER) for rule in users.app.url_map.iter_rules()}
    assert routes == public | frame | {path for _, path in INTERNAL}


@pytest.mark.parametrize("path", ["/users/nobody", "/users/nobody/risk", "/users/%00"])
def test_an_id_that_is_none_is_invalid_uuid(users: UserApp, path: str) -> None:
    answer = users.call("GET", path)
    assert (answer.status_code, refusal(answer)) == (400, "INVALID_UUID")


@pytest.mark.claim("schema/users.is_flagged", "otp/checks-buyer-flag")
def test_risk_says_who_is_flagged(users: UserApp) -> None:
    flags = [users.call("GET", f"/users/{USER[:-1]}{last}/risk").get_json()["data"]["is_flagged"] for last in "12"]
    assert flags == [False, True]


def test_an_unknown_user_is_404(users: UserApp) -> None:
    assert refusal(users.call("GET", f"/users/{USER[:-1]}7")) == "USER_NOT_FOUND"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/credits/deduct", 405)])
def test_the_envelope_is_the_same_for_what_is_not_there(users: UserApp, method: str, path: str, status: int) -> None:
    answer = users.call(method, path)
    assert answer.status_code == status
    assert refusal(answer) in ("NOT_FOUND", "METHOD_NOT_ALLOWED")


def test_health_asks_the_database(users: UserApp) -> None:
    answer = users.public("GET", "/health")
    assert (answer.status_code, answer.get_json()["checks"]) == (200, {"database": "ok"})


ENVIRONMENT = {
    "JWT_SECRET": "j" * 32, "INTERNAL_JWT_SECRET": "i" * 32, "DB_HOST": "db", "DB_NAME": "users_db", "DB_USER": "u",
    "DB_PASS": "p", "SMU_API_URL": "http://smu/", "SMU_API_KEY": "k", "STRIPE_SECRET_KEY": "sk",
    "STRIPE_WEBHOOK_SECRET": "whsec", "STRIPE_API_BASE": "http://stripe",
}  # fmt: skip


def test_settings_are_read_from_the_environment() -> None:
    settings = Settings.read(Env(ENVIRONMENT))
    assert (settings.process.port, settings.smu_url, settings.stripe_base) == (5000, "http://smu", "http://stripe")
    assert not {"sk", "whsec", "'k'", "j" * 32} & set(repr(settings).replace(",", " ").split())


@pytest.mark.parametrize(
    "name", ["SMU_API_URL", "SMU_API_KEY", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "DB_HOST"]
)
def test_a_missing_setting_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Settings.read(Env({key: value for key, value in ENVIRONMENT.items() if key != name}))


@pytest.mark.parametrize("name", ["SMU_API_URL", "STRIPE_API_BASE"])
def test_an_address_that_is_none_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Settings.read(Env(ENVIRONMENT | {name: "smu.test"}))
