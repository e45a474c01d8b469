"""Access policies of routes. An app does not start if one of its routes names no policy (D30–D32)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar
from uuid import UUID

from flask import Flask, g, request

from services.chassis import tokens
from services.chassis.errors import ConfigurationError, Refused, Unknown
from services.chassis.settings import ProcessSettings
from services.contracts.enums import Role, StaffArea
from services.contracts.errors import ErrorCode

logger = logging.getLogger(__name__)
View = TypeVar("View", bound=Callable[..., Any])
STALE_AFTER = 5.0  # age in seconds at which strict routes stop trusting the list of revoked sessions


class Revocations(Protocol):
    """The sessions that were revoked before their tokens expired."""

    def is_revoked(self, sid: str) -> bool:
        """True if the session with this `sid` was revoked."""

    def age(self) -> float:
        """Seconds since the list was last known to be complete."""

    def find_role(self, user_id: UUID, sid: str) -> str | None:
        """The current role of a user, or None if their login has ended. Raises Unknown."""


@dataclass(frozen=True)
class Policy:
    """The credential that a route requires: a user with one of `roles`, a service in `callers`, or none if `public`.

    `strict` routes move money or tickets. They return 503 while the list of revoked sessions is stale.
    The other routes continue, because a token alone expires within 15 minutes.
    `area` refuses the accounts of staff that are limited to another area.
    """

    roles: frozenset[Role] = frozenset()
    callers: frozenset[str] = frozenset()
    public: bool = False
    strict: bool = False
    area: StaffArea | None = None

    def __call__(self, view: View) -> View:
        """Attach this policy to a view function."""
        view.policy = self  # type: ignore[attr-defined]
        return view


public = Policy(public=True)
signed_in = Policy(roles=frozenset(Role))
customer = Policy(roles=frozenset({Role.CUSTOMER}))
staff = Policy(roles=frozenset({Role.STAFF}))
paying_customer = Policy(roles=frozenset({Role.CUSTOMER}), strict=True)
deciding_staff = Policy(roles=frozenset({Role.STAFF}), strict=True)
gate_staff = replace(staff, area=StaffArea.GATE)
support_staff = replace(deciding_staff, area=StaffArea.SUPPORT)
finance_staff = replace(deciding_staff, area=StaffArea.FINANCE)


def internal(*callers: str) -> Policy:
    """Allow only the named services."""
    return Policy(callers=frozenset(callers))


class Guard:
    """Checks each request against the policy of its route before the view runs."""

    def __init__(self, settings: ProcessSettings, revocations: Revocations | None) -> None:
        self._settings = settings
        self._revocations = revocations

    def protect(self, app: Flask) -> None:
        """Check every later request of `app`."""
        app.before_request(lambda: self._check(app))

    def _check(self, app: Flask) -> None:
        if request.endpoint is not None:
            view: Any = app.view_functions[request.endpoint]
            self.admit(view.policy)

    def admit(self, policy: Policy) -> None:
        """Set `g.caller` or `g.identity`. Raises Refused UNAUTHORIZED, TOKEN_EXPIRED or FORBIDDEN, and Unknown."""
        if policy.public:
            return
        token = tokens.parse_bearer(request.headers.get("Authorization"))
        if policy.callers:
            g.caller = self._verify_service(token, policy)
        else:
            g.identity = self._verify_user(token, policy)

    def _verify_service(self, token: str, policy: Policy) -> str:
        name = tokens.verify_caller(self._settings.service_keys, self._settings.service, token)
        if name not in policy.callers:
            raise Refused(ErrorCode.FORBIDDEN, f"{name} is not allowed to call this endpoint.")
        return name

    def _verify_user(self, token: str, policy: Policy) -> tokens.Identity:
        identity = tokens.verify(self._settings.user_keys, token)
        self.refuse_revoked(identity, strict=policy.strict)
        if identity.role is Role.STAFF:
            identity = self._read_role(identity, strict=policy.strict)
        if identity.role not in policy.roles:
            raise Refused(ErrorCode.FORBIDDEN, f"A {identity.role} account is not allowed to call this endpoint.")
        if policy.area and identity.area not in (None, policy.area):
            message = f"Your account is limited to {identity.area}. This needs {policy.area}."
            raise Refused(ErrorCode.FORBIDDEN, message)
        return identity

    def _read_role(self, identity: tokens.Identity, *, strict: bool) -> tokens.Identity:
        """Read the role of staff from User, so that a demotion takes effect at once (D71).

        Raises Refused UNAUTHORIZED if the account is locked or deleted, or Unknown if `strict` and User is away.
        """
        if self._revocations is None:
            return identity
        try:
            role = self._revocations.find_role(identity.user_id, identity.sid)
        except Unknown:
            if strict:
                raise
            logger.warning("User does not answer, so this request of staff is accepted by its token alone")
            return identity
        if role is None:
            raise Refused(ErrorCode.UNAUTHORIZED, "This login has ended. Log in again.")
        name, _, area = role.partition(":")
        return replace(identity, role=Role(name), area=StaffArea(area) if area else None)

    def refuse_revoked(self, identity: tokens.Identity, *, strict: bool) -> None:
        """Raise Refused UNAUTHORIZED for a revoked session, or Unknown if `strict` and the list is stale."""
        if self._revocations is None:
            return
        if self._revocations.is_revoked(identity.sid):
            raise Refused(ErrorCode.UNAUTHORIZED, "This session was revoked. Log in again.")
        if self._revocations.age() <= STALE_AFTER:
            return
        if strict:
            raise Unknown("Could not check whether this session was revoked. Try again shortly.")
        logger.warning("the list of revoked sessions is stale, so this request is accepted by its token alone")


def require_policies(app: Flask) -> None:
    """Raise ConfigurationError if a route names no policy."""
    unguarded = [name for name, view in app.view_functions.items() if not hasattr(view, "policy")]
    if unguarded:
        raise ConfigurationError(f"routes without a policy: {', '.join(sorted(unguarded))}")


def identity() -> tokens.Identity:
    """The user who makes the current request."""
    found: tokens.Identity = g.identity
    return found


def seconds_since(since: float | None) -> float:
    """Seconds since a `time.monotonic()` reading, or infinity for None."""
    return float("inf") if since is None else time.monotonic() - since
