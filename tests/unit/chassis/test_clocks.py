"""The clocks of two hosts may differ by a few seconds: user tokens, service credentials and events."""

from __future__ import annotations

import time
from uuid import uuid4

import jwt
import pytest

from services.chassis import tokens
from services.chassis.errors import Refused
from tests.support.service_settings import SERVICE_KEYS, USER_KEY, USER_KEYS, make_credential, user_token

pytestmark = pytest.mark.unit

CALLED = "user-service"
AHEAD = [2, 10, 15]  # seconds that the clock of the signing host is ahead


@pytest.fixture(autouse=True)
def stop_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock, so that a slow machine reaches no limit earlier."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)


def set_clock(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    """Move the clock of `tokens` by `ahead` seconds."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead)


def issue_ahead(monkeypatch: pytest.MonkeyPatch, ahead: float, kind: str = "access") -> str:
    with monkeypatch.context() as moved:
        set_clock(moved, ahead)
        return user_token(uuid4(), "customer", "a session", kind)


def sign_ahead(monkeypatch: pytest.MonkeyPatch, ahead: float) -> str:
    with monkeypatch.context() as moved:
        set_clock(moved, ahead)
        return tokens.parse_bearer(make_credential("order-service", CALLED).header())


def refused_code(token: str) -> str:
    with pytest.raises(Refused) as refusal:
        tokens.verify(USER_KEYS, token)
    return refusal.value.code


@pytest.mark.parametrize("ahead", AHEAD)
@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_token_of_a_host_that_is_ahead_is_valid(monkeypatch: pytest.MonkeyPatch, ahead: int, kind: str) -> None:
    assert tokens.verify(USER_KEYS, issue_ahead(monkeypatch, ahead, kind), kind).sid == "a session"


@pytest.mark.parametrize("ahead", AHEAD)
def test_credential_of_a_host_that_is_ahead_is_valid(monkeypatch: pytest.MonkeyPatch, ahead: int) -> None:
    assert tokens.verify_caller(SERVICE_KEYS, CALLED, sign_ahead(monkeypatch, ahead)) == "order-service"


def test_times_far_ahead_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused_code(issue_ahead(monkeypatch, 60)) == "UNAUTHORIZED"
    with pytest.raises(Refused):
        tokens.verify_caller(SERVICE_KEYS, CALLED, sign_ahead(monkeypatch, 60))


@pytest.mark.parametrize("seconds", [0, 10, 14])
def test_token_ends_a_leeway_after_its_exp(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """The verifier read the token while it was valid, so the cached one is checked too."""
    token = issue_ahead(monkeypatch, 0)
    assert tokens.verify(USER_KEYS, token)
    set_clock(monkeypatch, tokens.ACCESS_SECONDS + seconds)
    assert tokens.verify(USER_KEYS, token)
    set_clock(monkeypatch, tokens.ACCESS_SECONDS + tokens.CLOCK_LEEWAY_SECONDS + 1)
    assert refused_code(token) == "TOKEN_EXPIRED"


def test_credential_ends_a_leeway_after_its_exp(monkeypatch: pytest.MonkeyPatch) -> None:
    credential = sign_ahead(monkeypatch, 0)
    set_clock(monkeypatch, tokens.CREDENTIAL_SECONDS + 10)
    assert tokens.verify_caller(SERVICE_KEYS, CALLED, credential)
    set_clock(monkeypatch, tokens.CREDENTIAL_SECONDS + tokens.CLOCK_LEEWAY_SECONDS + 1)
    with pytest.raises(Refused, match="TOKEN_EXPIRED"):
        tokens.verify_caller(SERVICE_KEYS, CALLED, credential)


@pytest.mark.parametrize(("ahead", "is_valid"), [(10, True), (60, False)])
def test_nbf_has_the_same_leeway(ahead: int, is_valid: bool) -> None:
    claims = jwt.decode(user_token(uuid4(), "staff"), options={"verify_signature": False})
    token = USER_KEY.sign({**claims, "nbf": int(time.time()) + ahead})
    if is_valid:
        assert tokens.verify(USER_KEYS, token)
    else:
        assert refused_code(token) == "UNAUTHORIZED"


def test_credential_is_signed_again_after_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that started with a clock one hour ahead works as soon as its clock is right."""
    credential = make_credential("order-service", CALLED)
    with monkeypatch.context() as moved:
        set_clock(moved, 3600)
        credential.header()
    assert tokens.verify_caller(SERVICE_KEYS, CALLED, tokens.parse_bearer(credential.header())) == "order-service"
