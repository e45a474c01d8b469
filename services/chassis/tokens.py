"""Two kinds of ES256 JWT: user tokens, which User issues (§11), and service credentials, which each service signs.

Each signer has its own key, and verifiers hold the public keys only (D70). A credential is for one called service, so
a service cannot use the credentials that it receives.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any
from uuid import UUID, uuid4

import jwt

from services.chassis.errors import Refused
from services.chassis.keys import PublicKeys, SigningKey
from services.contracts.enums import Role, StaffArea
from services.contracts.errors import ErrorCode

ISSUER = "ticketremaster"
ACCESS_SECONDS = 15 * 60
REFRESH_SECONDS = 7 * 24 * 3600
CREDENTIAL_SECONDS = 300
_LIFETIMES = {"access": ACCESS_SECONDS, "refresh": REFRESH_SECONDS}  # a verifier accepts no longer one
# The clocks of two hosts may differ by this much. The real Kong has no leeway for `exp`, so a gateway that is ahead
# makes clients refresh earlier.
CLOCK_LEEWAY_SECONDS = 15
_CLAIMS = {"require": ["sub", "role", "iat", "exp", "type", "iss", "jti", "sid"]}


@dataclass(frozen=True)
class Identity:
    """The user of a verified token. `sid` is the id of the session, which a logout revokes."""

    user_id: UUID
    role: Role
    sid: str
    expires_at: int
    token_id: str
    area: StaffArea | None = None  # of a limited account of staff. User stores it, and the token has no area


def issue(
    key: SigningKey, user_id: UUID, role: str, sid: str, kind: str, token_id: str = "", expires_at: int | None = None
) -> str:
    """Sign a user token. `kind` is "access" (15 minutes) or "refresh" (7 days, or until `expires_at`)."""
    now = int(time.time())
    end = now + _LIFETIMES[kind]
    claims = {"sub": str(user_id), "role": role, "iat": now, "exp": min(end, expires_at or end), "type": kind}
    return key.sign({**claims, "iss": ISSUER, "jti": token_id or str(uuid4()), "sid": sid})


def verify(keys: PublicKeys, token: str, kind: str = "access") -> Identity:
    """The identity in a user token of the given kind. Raises Refused TOKEN_EXPIRED or UNAUTHORIZED."""
    identity, actual = _decode_identity(keys, token)
    if is_past(identity.expires_at):
        raise Refused(ErrorCode.TOKEN_EXPIRED)
    if actual != kind:
        raise Refused(ErrorCode.UNAUTHORIZED, f"Send the {kind} token here, not the {actual} token.")
    return identity


@lru_cache(maxsize=4096)
def _decode_identity(keys: PublicKeys, token: str) -> tuple[Identity, str]:
    _, claims = _decode(keys, token, issuer=ISSUER, options=_CLAIMS)
    _refuse_long_life(claims, _LIFETIMES.get(str(claims["type"]), 0))
    try:
        identity = Identity(
            UUID(claims["sub"]), Role(claims["role"]), str(claims["sid"]), int(claims["exp"]), str(claims["jti"])
        )
    except ValueError:
        raise Refused(ErrorCode.UNAUTHORIZED) from None
    return identity, str(claims["type"])


def is_past(moment: float) -> bool:
    """True if a time (seconds since the epoch) that another host wrote is past on any clock within the leeway."""
    return moment + CLOCK_LEEWAY_SECONDS <= time.time()


def verify_caller(keys: PublicKeys, called: str, token: str) -> str:
    """The name of the service that calls the service `called`. Raises Refused UNAUTHORIZED or TOKEN_EXPIRED."""
    name, expires_at = _decode_caller(keys, called, token)
    if is_past(expires_at):
        raise Refused(ErrorCode.TOKEN_EXPIRED)
    return name


@lru_cache(maxsize=256)
def _decode_caller(keys: PublicKeys, called: str, token: str) -> tuple[str, int]:
    required = {"require": ["sub", "iat", "exp", "aud", "iss"]}
    owner, claims = _decode(keys, token, issuer=ISSUER, audience=called, options=required)
    _refuse_long_life(claims, CREDENTIAL_SECONDS)
    if claims["sub"] != owner:  # the key of one service signs for that service only
        raise Refused(ErrorCode.UNAUTHORIZED)
    return owner, int(claims["exp"])


def _decode(keys: PublicKeys, token: str, **checks: Any) -> tuple[str, dict[str, Any]]:
    try:
        return keys.verify(token, leeway=CLOCK_LEEWAY_SECONDS, **checks)
    except jwt.ExpiredSignatureError:
        raise Refused(ErrorCode.TOKEN_EXPIRED) from None
    except (jwt.InvalidTokenError, ValueError):
        raise Refused(ErrorCode.UNAUTHORIZED) from None


def _refuse_long_life(claims: dict[str, Any], seconds: int) -> None:
    if int(claims["exp"]) - int(claims["iat"]) > seconds:
        raise Refused(ErrorCode.UNAUTHORIZED)


class Credential:
    """The credential of a service for calls to the service `called`, renewed before it expires. Thread-safe."""

    def __init__(self, service: str, key: SigningKey, called: str) -> None:
        self._claims = {"sub": service, "aud": called, "iss": ISSUER}
        self._key = key
        self._lock = Lock()
        self._header = ""
        self._signed_at = self._renew_at = 0.0

    def header(self) -> str:
        """The value of the `Authorization` header."""
        # A clock that was set back has signed with a time that the other hosts have not reached, so sign again.
        if not self._signed_at <= time.time() < self._renew_at:
            with self._lock:
                self._renew(int(time.time()))
        return self._header

    def _renew(self, now: int) -> None:
        self._header = f"Bearer {self._key.sign({**self._claims, 'iat': now, 'exp': now + CREDENTIAL_SECONDS})}"
        self._signed_at, self._renew_at = now, now + CREDENTIAL_SECONDS / 2


def parse_bearer(header: str | None) -> str:
    """The token of an `Authorization: Bearer …` header. Raises Refused UNAUTHORIZED."""
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refused(ErrorCode.UNAUTHORIZED)
    return token.strip()
