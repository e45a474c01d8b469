"""Who may call a route. Every route names its policy; an app with a route that names none does not start (D30–D32)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from flask import Flask, g, request

from services.chassis import tokens
from services.chassis.errors import ConfigurationError, Refused, Unknown
from services.chassis.settings import ProcessSettings
from services.contracts.enums import Role
from services.contracts.errors import ErrorCode

logger = logging.getLogger(__name__)
View = TypeVar("View", bound=Callable[..., Any])
STALE_AFTER = 5.0  # seconds without news of revocations before money waits


class Revocations(Protocol):
    """The logins that were ended before their tokens ran out."""

    def is_revoked(self, sid: str) -> bool:
        """True when the login was ended."""

    def age(self) -> float:
        """Seconds since the list was last known to be whole."""


@dataclass(frozen=True)
class Policy:
    """What a caller must show: a user of one of `roles`, a service of `callers`, or nothing (`public`).

    `strict` verbs move money or tickets: they wait when revocations are not known to be fresh. The others go on.
    """

    roles: frozenset[Role] = frozenset()
    callers: frozenset[str] = frozenset()
    public: bool = False
    strict: bool = False

    def __call__(self, view: View) -> View:
        """Mark a view function with this policy."""
        view.policy = self  # type: ignore[attr-defined]
        return view


public = Policy(public=True)
signed_in = Policy(roles=frozenset(Role))
customer = Policy(roles=frozenset({Role.CUSTOMER}))
staff = Policy(roles=frozenset({Role.STAFF}))
paying_customer = Policy(roles=frozenset({Role.CUSTOMER}), strict=True)
deciding_staff = Policy(roles=frozenset({Role.STAFF}), strict=True)


def internal(*callers: str) -> Policy:
    """Only the named services may call."""
    return Policy(callers=frozenset(callers))


class Guard:
    """Checks each request against its route's policy before the view runs."""

    def __init__(self, settings: ProcessSettings, revocations: Revocations | None) -> None:
        self._settings = settings
        self._revocations = revocations

    def protect(self, app: Flask) -> None:
        """Check every request of `app` from now on."""
        app.before_request(lambda: self._check(app))

    def _check(self, app: Flask) -> None:
        if request.endpoint is not None:
            view: Any = app.view_functions[request.endpoint]
            self.admit(view.policy)

    def admit(self, policy: Policy) -> None:
        """Put `g.caller` or `g.identity` in place, or raise Refused UNAUTHORIZED, TOKEN_EXPIRED or FORBIDDEN."""
        if policy.public:
            return
        token = tokens.parse_bearer(request.headers.get("Authorization"))
        if policy.callers:
            g.caller = self._service(token, policy)
        else:
            g.identity = self._user(token, policy)

    def _service(self, token: str, policy: Policy) -> str:
        name = tokens.verify_caller(self._settings.internal_jwt_secret, token)
        if name not in policy.callers:
            raise Refused(ErrorCode.FORBIDDEN, f"{name} is not allowed to call this endpoint.")
        return name

    def _user(self, token: str, policy: Policy) -> tokens.Identity:
        identity = tokens.verify(self._settings.jwt_secret, token)
        self.refuse_revoked(identity, strict=policy.strict)
        if identity.role not in policy.roles:
            raise Refused(ErrorCode.FORBIDDEN, f"This is not for {identity.role} accounts.")
        return identity

    def refuse_revoked(self, identity: tokens.Identity, *, strict: bool) -> None:
        """Raise Refused UNAUTHORIZED for an ended login, Unknown when `strict` and nobody can tell."""
        if self._revocations is None:
            return
        if self._revocations.is_revoked(identity.sid):
            raise Refused(ErrorCode.UNAUTHORIZED, "This session was revoked. Log in again.")
        if self._revocations.age() <= STALE_AFTER:
            return
        if strict:
            raise Unknown("Could not check whether this session was revoked. Try again shortly.")
        logger.warning("revocations are stale; this request goes on by its token alone")


def require_policies(app: Flask) -> None:
    """Raise ConfigurationError when a route names no policy."""
    bare = [name for name, view in app.view_functions.items() if not hasattr(view, "policy")]
    if bare:
        raise ConfigurationError(f"routes without a policy: {', '.join(sorted(bare))}")


def identity() -> tokens.Identity:
    """The user that the request in hand speaks for."""
    found: tokens.Identity = g.identity
    return found


def seconds_since(since: float | None) -> float:
    """Seconds since a `time.monotonic()` reading; endless when there is none."""
    return float("inf") if since is None else time.monotonic() - since
