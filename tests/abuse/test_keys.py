"""An attacker with the environment of one service tries to act as a user and as every other service."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key

from services.chassis.keys import SigningKey
from tests.abuse.addresses import from_address, new_addresses
from tests.support.endpoints import CALLERS
from tests.support.people import credential, token
from tests.support.system import TestSystem

pytestmark = [pytest.mark.abuse, pytest.mark.usefixtures("invariants")]

DEBIT = "/credits/deduct"


def list_private_keys(environment: dict[str, str]) -> list[str]:
    """Return every value of an environment that is a private key."""
    return [value for value in environment.values() if _is_private_key(value)]


def _is_private_key(value: str) -> bool:
    try:
        return bool(load_der_private_key(base64.b64decode(value, validate=True), password=None))
    except ValueError:
        return False


def sign_in_every_way(environment: dict[str, str], key_id: str, claims: dict[str, Any]) -> list[str]:
    """Sign claims with each key, and with each long value of an environment as an HS256 secret."""
    keys = [SigningKey.parse(text) for text in list_private_keys(environment)]
    signed = [replace(key, key_id=name).sign(claims) for key in keys for name in (key_id, key.key_id)]
    secrets = [value for value in environment.values() if len(value) >= 32]  # PyJWT warns of a shorter one
    return signed + [jwt.encode(claims, secret, algorithm="HS256", headers={"kid": key_id}) for secret in secrets]


@pytest.mark.parametrize("service", [name for name in CALLERS if name != "user-service"])
def test_environment_of_a_service_signs_no_user_token(system: TestSystem, honest_buyers: Any, service: str) -> None:
    users_key = system.env("user-service")["PRIVATE_KEY"]
    good = token(users_key, system.staff().user_id, "staff")
    claims = jwt.decode(good, options={"verify_signature": False})
    attacker = from_address(system.visitor(), new_addresses(1)[0])
    with honest_buyers():
        for forged in sign_in_every_way(system.env(service), SigningKey.parse(users_key).key_id, claims):
            for url in (system.stack.url("api-gateway"), system.stack.url("event-service")):
                assert attacker.at(url).call("GET", "/api/events", token=forged).status == 401
    assert attacker.call("GET", "/api/events", token=good).status == 200  # the same claims with the right key


@pytest.mark.parametrize("service", [name for name in CALLERS if name != "orchestrator-service"])
def test_environment_of_a_service_signs_no_call_of_another(system: TestSystem, service: str) -> None:
    key = system.env("orchestrator-service")["PRIVATE_KEY"]
    victim = system.person("40.00")
    debit = {"key": f"test:{victim.user_id}:1:debit", "user_id": victim.user_id, "amount": 40}
    good = credential(key, "orchestrator-service", "user-service")
    claims = jwt.decode(good, options={"verify_signature": False})
    at_user = system.visitor(system.stack.url("user-service"))
    for forged in sign_in_every_way(system.env(service), SigningKey.parse(key).key_id, claims):
        assert at_user.call("POST", DEBIT, debit, token=forged).status == 401
    if service != "user-service":  # a credential that the service got with a call of the orchestrator
        received = credential(key, "orchestrator-service", service)
        assert at_user.call("POST", DEBIT, debit, token=received).status == 401
    assert victim.balance() == 40
    assert at_user.call("POST", DEBIT, debit, token=good).status == 200  # the same debit with the right credential
    assert at_user.call("POST", "/credits/refund", {"key": debit["key"]}, token=good).status == 200


def test_each_environment_has_one_private_key_of_its_own(system: TestSystem) -> None:
    keys = {service: list_private_keys(system.env(service)) for service in CALLERS}
    assert {len(found) for found in keys.values()} == {1}
    assert len({found[0] for found in keys.values()}) == len(CALLERS)
    assert list_private_keys(system.env("api-gateway")) == []


def test_no_verifier_accepts_a_long_lifetime(system: TestSystem) -> None:
    """Also a token with the right signature has an end, so that a stolen one has one."""
    key, person = system.env("user-service")["PRIVATE_KEY"], system.person()
    years = 31 * 365 * 24 * 3600
    claims = jwt.decode(token(key, person.user_id, "customer"), options={"verify_signature": False})
    for kind, path in (("access", "/api/orders"), ("refresh", "/api/auth/refresh")):
        forged = token(key, person.user_id, "customer", kind, exp=claims["iat"] + years)
        service = "orchestrator-service" if kind == "access" else "user-service"
        for url in (system.stack.url("api-gateway"), system.stack.url(service)):
            answer = person.at(url).call("GET" if kind == "access" else "POST", path, token=forged)
            assert answer.status == 401, (kind, url, answer)
