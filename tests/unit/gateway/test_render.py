"""The rendered kong.yml, and the environments that are refused."""

from __future__ import annotations

import stat
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from harness.runtime import variables
from services.chassis import tokens
from services.chassis.keys import PublicKeys
from services.gateway import render
from services.orchestrator.settings import Settings
from tests.doc_pages.settings_page import RecordingEnv
from tests.support.service_settings import key_environment

pytestmark = pytest.mark.unit

KEYS = key_environment("user-service")["USER_PUBLIC_KEYS"]
NEXT = variables.resolve({}, {}, frozenset())["USER_PUBLIC_KEYS"]
ENV = {
    "USER_PUBLIC_KEYS": KEYS,
    "USER_SERVICE_URL": "http://user-service:5000",
    "EVENT_SERVICE_URL": "http://event-service:5002/",
    "ORCHESTRATOR_URL": "http://orchestrator-service:5003",
}


def load_config(**changes: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(render.render({**ENV, **changes}), yaml.CSafeLoader)
    return loaded


def routes(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {route["name"]: route for service in config["services"] for route in service["routes"]}


def plugin(holder: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry["config"] for entry in holder["plugins"] if entry["name"] == name)
    return found


def test_no_placeholder_remains():
    assert "{{" not in render.render(ENV)


def list_targets(config: dict[str, Any]) -> dict[str, list[str]]:
    """The targets of each service."""
    upstreams = {upstream["name"]: upstream["targets"] for upstream in config["upstreams"]}
    return {
        service["name"]: [entry["target"] for entry in upstreams[service["host"]]] for service in config["services"]
    }


def test_services_get_their_addresses():
    assert list_targets(load_config(ORCHESTRATOR_URL="http://one:5003,two:6003")) == {
        "user-service": ["user-service:5000"],
        "event-service": ["event-service:5002"],
        "orchestrator-service": ["one:5003", "two:6003"],
    }


def test_only_several_targets_have_health_checks():
    upstreams = load_config(ORCHESTRATOR_URL="http://one:5003,two:6003")["upstreams"]
    assert [upstream.get("healthchecks") for upstream in upstreams] == [None, None, render.CHECKS]


def test_gateway_waits_as_long_as_the_orchestrator_answers():
    """A shorter time would cut off answers. A longer one would only cost the clients of a hung target."""
    orchestrator = Settings.read(RecordingEnv("Orchestrator"))  # the defaults
    for service in load_config()["services"]:
        assert service["read_timeout"] / 1000 == orchestrator.deadline_seconds


@pytest.mark.claim("gateway/public-routes", "token/gateway-checks-first")
def test_every_route_but_the_public_ones_needs_a_token():
    open_routes = {
        name: route["paths"]
        for name, route in routes(load_config()).items()
        if "jwt" not in [entry["name"] for entry in route["plugins"]]
    }
    assert open_routes == {
        "auth-public": ["~/api/auth/login$", "~/api/auth/register$", "~/api/auth/password/reset(/confirm)?$"],
        "stripe-webhook": ["~/api/webhooks/stripe$"],
        "docs": ["/docs"],
        "health": ["~/health$"],
        "no-route": ["/"],
    }


def test_path_without_a_route_is_refused_from_every_address():
    assert plugin(routes(load_config())["no-route"], "ip-restriction") == {
        "deny": ["0.0.0.0/0", "::/0"],
        "status": 404,
        "message": "no Route matched with those values",
    }


@pytest.mark.claim("gateway/jwt-plugin-refuses", "gateway/jwt-plugin-claim")
def test_all_routes_check_tokens_alike_and_only_in_headers():
    checks = [plugin(routes(load_config())[name], "jwt") for name in ("auth", "events", "api")]
    lifetimes = [check.pop("maximum_expiration") - tokens.CLOCK_LEEWAY_SECONDS for check in checks]
    assert lifetimes == [tokens.REFRESH_SECONDS, tokens.ACCESS_SECONDS, tokens.ACCESS_SECONDS]
    assert checks[0] == checks[1] == checks[2]
    assert checks[0]["key_claim_name"] == "kid"
    assert checks[0]["claims_to_verify"] == ["exp"]
    assert checks[0]["uri_param_names"] == []


def test_anonymous_requests_are_refused_from_every_address():
    config = load_config()
    anonymous = next(
        c for c in config["consumers"] if c["username"] == plugin(routes(config)["api"], "jwt")["anonymous"]
    )
    assert "jwt_secrets" not in anonymous
    assert plugin(anonymous, "ip-restriction") == {
        "deny": ["0.0.0.0/0", "::/0"],
        "status": 401,
        "message": "Unauthorized",
    }


@pytest.mark.claim("layers/gateway-guards-routes")
def test_limits_come_from_the_environment():
    config = load_config(RATE_LIMIT_PER_MINUTE="9000", RATE_LIMIT_PUBLIC_PER_MINUTE="8000")
    assert plugin(config, "rate-limiting")["minute"] == 9000
    assert plugin(routes(config)["auth-public"], "rate-limiting")["minute"] == 8000


def test_limits_have_defaults():
    config = load_config()
    assert plugin(config, "rate-limiting")["minute"] == 600
    assert plugin(routes(config)["auth-public"], "rate-limiting")["minute"] == 120


@pytest.mark.claim("gateway/cors-origins")
def test_origins_come_from_the_environment():
    config = load_config(CORS_ORIGINS="https://shop.example.com, http://localhost:3000")
    assert plugin(config, "cors")["origins"] == ["https://shop.example.com", "http://localhost:3000"]


def test_each_public_key_of_user_has_the_id_that_user_writes():
    """Two keys are valid at once, so that a new one can replace the old one without a logout."""
    found = load_config(USER_PUBLIC_KEYS=f"{KEYS}, {NEXT}")["consumers"][0]["jwt_secrets"]
    assert [key["key"] for key in found] == list(PublicKeys.parse(f"{KEYS},{NEXT}", "user-service").keys)
    assert [load_pem_public_key(key["rsa_public_key"].encode()) for key in found] == list(
        PublicKeys.parse(f"{KEYS},{NEXT}", "user-service").keys.values()
    )
    assert {key["algorithm"] for key in found} == {"ES256"}


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("USER_PUBLIC_KEYS", "", "USER_PUBLIC_KEYS is not set"),
        ("USER_PUBLIC_KEYS", "change_me", "USER_PUBLIC_KEYS is not a list of public keys"),
        ("USER_PUBLIC_KEYS", KEYS[4:], "USER_PUBLIC_KEYS is not a list of public keys"),
        ("USER_PUBLIC_KEYS", f"{KEYS},", "USER_PUBLIC_KEYS is not a list of public keys"),
        ("USER_PUBLIC_KEYS", KEYS + "\n", "USER_PUBLIC_KEYS contains characters"),
        ("USER_SERVICE_URL", "", "USER_SERVICE_URL is not set"),
        ("EVENT_SERVICE_URL", "event-service:5002", "EVENT_SERVICE_URL=event-service:5002 is not of the form"),
        ("ORCHESTRATOR_URL", "http://o:1/api", "ORCHESTRATOR_URL=http://o:1/api is not of the form"),
        ("ORCHESTRATOR_URL", "http://o:1,", "ORCHESTRATOR_URL=http://o:1, is not of the form"),
        ("ORCHESTRATOR_URL", "http://o:1,http://p:1", "is not of the form"),
        ("ORCHESTRATOR_URL", "http://o:1,o:1", "ORCHESTRATOR_URL=http://o:1,o:1 contains an address twice"),
        ("RATE_LIMIT_PER_MINUTE", "many", "RATE_LIMIT_PER_MINUTE=many is not a whole number"),
        ("RATE_LIMIT_PUBLIC_PER_MINUTE", "0", "RATE_LIMIT_PUBLIC_PER_MINUTE=0 is not a whole number"),
        ("CORS_ORIGINS", "*", "CORS_ORIGINS: '*' is not an origin"),
    ],
)
def test_a_bad_value_fails_with_one_line(name, value, complaint, monkeypatch, capsys, tmp_path):
    for key, good in ENV.items():
        monkeypatch.setenv(key, good)
    monkeypatch.setenv(name, value)
    assert render.main([str(tmp_path / "kong.yml")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert complaint in lines[0]
    assert not (tmp_path / "kong.yml").exists()


def test_an_unknown_placeholder_is_an_error():
    with pytest.raises(render.RenderError, match="unknown placeholder COLOUR"):
        render.render(ENV, "colour: {{ COLOUR }}\n")


@pytest.mark.parametrize(("arguments", "mode"), [([], 0o600), (["--mode", "644"], 0o644)])
def test_the_file_is_readable_by_its_owner_only_by_default(arguments, mode, monkeypatch, tmp_path):
    for key, good in ENV.items():
        monkeypatch.setenv(key, good)
    output = tmp_path / "deeper" / "kong.yml"
    assert render.main([str(output), *arguments]) == 0
    assert stat.S_IMODE(output.stat().st_mode) == mode
    assert [entry.name for entry in output.parent.iterdir()] == ["kong.yml"]
