"""The plugin jwt, with Kong's checks, order and messages."""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import jwt

from fakes.kong.declarative import Consumer, JwtConfig
from fakes.kong.exchange import Exchange, Headers
from fakes.kong.refusals import Refusal

_jws = jwt.PyJWS()
BEARER = re.compile(r"\s*[Bb]earer\s+(.+)")
ALGORITHMS = frozenset(f"{family}{size}" for family in ("HS", "RS", "ES", "PS") for size in (256, 384, 512))


class InvalidToken(Exception):
    """Kong's error for a token. `errors` replaces the message if Kong lists claims."""

    def __init__(
        self, message: str, errors: dict[str, str] | None = None, challenge: str = ' error="invalid_token"'
    ) -> None:
        super().__init__(message)
        self.message = message
        self.body = errors or {"message": message}
        self.challenge = challenge


class JwtPlugin:
    """Finds the consumer of a token. An invalid token gets the anonymous consumer, or 401 if there is none."""

    def __init__(self, config: JwtConfig, consumers: Iterable[Consumer]) -> None:
        self._config = config
        self._realm = f'Bearer realm="{config.realm}"' if config.realm else "Bearer"
        self._keys = {
            known.key: (consumer.username, known.rsa_public_key)
            for consumer in consumers
            for known in consumer.jwt_secrets
        }
        self._verified = functools.lru_cache(maxsize=4096)(self._verify)  # a valid signature stays valid

    def access(self, exchange: Exchange) -> Refusal | None:
        """Set the consumer, or refuse the request."""
        if exchange.method == "OPTIONS" and not self._config.run_on_preflight:
            return None
        try:
            key, exchange.consumer = self._authenticate(exchange)
        except InvalidToken as invalid:
            exchange.log_reason = invalid.message
            return self._reject(exchange, invalid)
        exchange.added["X-Consumer-ID"] = str(uuid5(NAMESPACE_DNS, exchange.consumer))
        exchange.added["X-Consumer-Username"] = exchange.consumer
        exchange.added["X-Credential-Identifier"] = key
        return None

    def header_filter(self, exchange: Exchange, headers: Headers) -> None:
        """Change nothing."""

    def _reject(self, exchange: Exchange, invalid: InvalidToken) -> Refusal | None:
        if self._config.anonymous is not None:
            exchange.consumer = self._config.anonymous
            exchange.added["X-Anonymous-Consumer"] = "true"
            return None
        headers = (("WWW-Authenticate", self._realm + invalid.challenge),)
        return Refusal(401, invalid.message, headers, json.dumps(invalid.body, separators=(",", ":")).encode())

    def _authenticate(self, exchange: Exchange) -> tuple[str, str]:
        key, consumer, claims = self._verified(self._token(exchange))
        self._check_claims(claims)
        return key, consumer

    def _verify(self, token: str) -> tuple[str, str, Mapping[str, Any]]:
        """Verify a token's signature and return its key, consumer and claims. Does not check its times."""
        header, claims = _decode(token)
        name = self._config.key_claim_name
        key = claims.get(name) or header.get(name)
        if key is None:
            raise InvalidToken(f"No mandatory '{name}' in claims")
        if key == "":
            raise InvalidToken(f"Invalid '{name}' in claims")
        if not isinstance(key, str) or key not in self._keys:
            raise InvalidToken(f"No credentials found for given '{name}'")
        consumer, public_key = self._keys[key]
        if header.get("alg") != "ES256":
            raise InvalidToken("Invalid algorithm")
        try:
            _jws.decode(token, public_key, algorithms=["ES256"])
        except jwt.PyJWTError:
            raise InvalidToken("Invalid signature") from None
        return key, consumer, claims

    def _token(self, exchange: Exchange) -> str:
        found = (BEARER.search(exchange.header(name)) for name in self._config.header_names)
        tokens = {match[1] for match in found if match}
        if not tokens:
            raise InvalidToken("Unauthorized", challenge="")
        if len(tokens) > 1:
            raise InvalidToken("Multiple tokens provided")
        return tokens.pop()

    def _check_claims(self, claims: Mapping[str, Any]) -> None:
        now = time.time()
        found = {name: _claim_error(name, claims.get(name), now) for name in self._config.claims_to_verify}
        errors = {str(name): error for name, error in found.items() if error}
        if errors:
            raise InvalidToken("; ".join(f"{name}: {error}" for name, error in errors.items()), errors)
        limit = self._config.maximum_expiration
        if limit and claims["exp"] - now > limit:
            raise InvalidToken("exp: exceeds maximum allowed expiration", {"exp": "exceeds maximum allowed expiration"})


def _decode(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Decode header and claims without verification. Raises InvalidToken."""
    try:
        unverified = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, UnicodeError):
        raise InvalidToken("Bad token; invalid JSON") from None
    header, claims = unverified["header"], unverified["payload"]
    if header.get("alg") not in ALGORITHMS:
        raise InvalidToken("Bad token; invalid alg")
    return header, claims


def _claim_error(name: str, value: object, now: float) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "must be a number"
    if name == "exp":
        return "token expired" if value <= now else None
    return "token not valid yet" if value > now else None
