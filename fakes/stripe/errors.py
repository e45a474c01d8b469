"""Stripe's error envelope, and the errors of this part of its API."""

from typing import Any

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
    return StripeError(404, f"Unrecognized request URL ({method}: {path}).")
