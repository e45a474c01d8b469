"""Each service signs with its own key, and no verifier accepts the key of another one or a long lifetime (D70)."""

from __future__ import annotations

import time
from dataclasses import replace
from uuid import uuid4

import jwt
import pytest

from harness.runtime import variables
from services.chassis import tokens
from services.chassis.errors import ConfigurationError, Refused
from services.chassis.keys import PublicKeys, SigningKey
from services.chassis.settings import Env, ProcessSettings
from tests.support.people import credential, token
from tests.support.service_settings import (
    SERVICE_KEYS,
    USER_KEY,
    USER_KEYS,
    key_environment,
    signing_key,
    user_token,
)

pytestmark = pytest.mark.unit

CALLER, CALLED = "orchestrator-service", "user-service"
KEY = key_environment(CALLER)["PRIVATE_KEY"]


def is_refused(text: str, kind: str = "access") -> bool:
    """Whether the user token is refused as invalid."""
    with pytest.raises(Refused) as refusal:
        tokens.verify(USER_KEYS, text, kind)
    return refusal.value.code == "UNAUTHORIZED"


@pytest.mark.parametrize(("kind", "seconds"), [("access", 15 * 60), ("refresh", 7 * 24 * 3600)])
def test_user_token_with_a_longer_lifetime_is_refused(kind: str, seconds: int) -> None:
    key, now = key_environment("user-service")["PRIVATE_KEY"], int(time.time())
    user = str(uuid4())
    assert tokens.verify(USER_KEYS, token(key, user, "staff", kind, iat=now, exp=now + seconds), kind)
    assert is_refused(token(key, user, "staff", kind, iat=now, exp=now + seconds + 1), kind)


def test_credential_with_a_longer_lifetime_is_refused() -> None:
    now = int(time.time())
    assert tokens.verify_caller(SERVICE_KEYS, CALLED, credential(KEY, CALLER, CALLED, iat=now, exp=now + 300)) == CALLER
    with pytest.raises(Refused, match="UNAUTHORIZED"):
        tokens.verify_caller(SERVICE_KEYS, CALLED, credential(KEY, CALLER, CALLED, iat=now, exp=now + 301))


@pytest.mark.parametrize("signer", ["order-service", "event-service", "inventory-service", "user-service"])
def test_key_of_a_service_signs_for_that_service_only(signer: str) -> None:
    text = credential(key_environment(signer)["PRIVATE_KEY"], CALLER, CALLED)
    with pytest.raises(Refused, match="UNAUTHORIZED"):
        tokens.verify_caller(SERVICE_KEYS, CALLED, text)


def test_credential_is_for_one_called_service() -> None:
    with pytest.raises(Refused, match="UNAUTHORIZED"):
        tokens.verify_caller(SERVICE_KEYS, CALLED, credential(KEY, CALLER, "order-service"))


def test_key_of_a_service_signs_no_user_token() -> None:
    claims = jwt.decode(user_token(uuid4(), "staff"), options={"verify_signature": False})
    for service in ("orchestrator-service", "order-service", "event-service", "inventory-service"):
        assert is_refused(signing_key(service).sign(claims))
        assert is_refused(replace(signing_key(service), key_id=USER_KEY.key_id).sign(claims))


def test_two_keys_are_valid_while_one_replaces_the_other() -> None:
    later = variables.resolve({}, {}, frozenset())
    both = PublicKeys.parse(f"{key_environment(CALLED)['USER_PUBLIC_KEYS']},{later['USER_PUBLIC_KEYS']}", CALLED)
    for key in (USER_KEY, SigningKey.parse(later["USER_PRIVATE_KEY"])):
        assert tokens.verify(both, tokens.issue(key, uuid4(), "customer", "a login", "access")).sid == "a login"


@pytest.mark.parametrize("service", ["order-service", "user-service"])
def test_private_key_of_another_service_stops_the_start(service: str) -> None:
    assert ProcessSettings.read(Env(key_environment(service)), service, 1).service == service
    with pytest.raises(ConfigurationError, match=f"no public key of {service} belongs to PRIVATE_KEY"):
        ProcessSettings.read(Env(key_environment(CALLER)), service, 1)


@pytest.mark.parametrize("name", ["PRIVATE_KEY", "USER_PUBLIC_KEYS", "SERVICE_PUBLIC_KEYS"])
@pytest.mark.parametrize("value", ["x" * 32, "MFkw", "order-service=", ","])
def test_value_that_is_no_key_stops_the_start(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is not a"):
        ProcessSettings.read(Env({**key_environment("order-service"), name: value}), "order-service", 1)
