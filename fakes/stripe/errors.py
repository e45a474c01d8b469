"""Stripe's error envelope, and the errors of this part of its API."""

from collections.abc import Iterable
from typing import Any

from fakes.stripe.unsupported import RESOURCES, VERBS

Json = dict[str, Any]


class StripeError(Exception):
    """An error response. An error about a parameter precedes the execution, so no idempotency key stores it."""

    def __init__(self, status: int, message: str, *, kind: str = "invalid_request_error", **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.error: Json = {"message": message, "type": kind} | more
        if "code" in more:
            self.error["doc_url"] = f"https://stripe.com/docs/error-codes/{more['code'].replace('_', '-')}"

    @property
    def was_executed(self) -> bool:
        return "param" not in self.error

    def envelope(self) -> Json:
        return {"error": self.error}


def parameter_error(param: str, message: str, code: str | None = None) -> StripeError:
    return StripeError(400, message, param=param, **({"code": code} if code else {}))


def unknown_parameter_error(param: str) -> StripeError:
    return parameter_error(param, f"Received unknown parameter: {param}", "parameter_unknown")


def unsupported_error(param: str, what: str, supported: Iterable[str]) -> StripeError:
    """The error for a part of Stripe's API that this fake lacks. Stripe itself would accept it."""
    message = f"{what} is not supported by this fake. It supports: {', '.join(supported)}"
    return StripeError(400, message, param=param)


def missing_error(kind: str, wanted: str, param: str, status: int = 404) -> StripeError:
    """The error for a missing object. `kind` is Stripe's spelling: payment_intent, event, PaymentMethod."""
    return StripeError(status, f"No such {kind}: '{wanted}'", code="resource_missing", param=param)


def status_error(verb: str, intent: Json) -> StripeError:
    message = f"You cannot {verb} this PaymentIntent because it has a status of {intent['status']}."
    return StripeError(400, message, code="payment_intent_unexpected_state", payment_intent=intent)


def authentication_error(key: str) -> StripeError:
    if not key:
        return StripeError(401, "You did not provide an API key. Use Bearer auth with a secret test key.")
    return StripeError(401, f"Invalid API Key provided: {key[:8]}{'*' * 8}{key[-4:] if len(key) > 16 else ''}")


def unknown_route_error(method: str, path: str) -> StripeError:
    """The error for a call that Stripe does not have, or that only this fake lacks."""
    version, resource, *rest = [*path.strip("/").split("/"), "", ""][:4]
    is_intent_verb = resource == "payment_intents" and rest[-1] in VERBS
    if version == "v1" and (is_intent_verb or resource in RESOURCES - {"payment_intents"}):
        message = f"{method} {path} is not supported by this fake. Its README lists the calls that it supports."
        return StripeError(404, message)
    return StripeError(404, f"Unrecognized request URL ({method}: {path}).")
