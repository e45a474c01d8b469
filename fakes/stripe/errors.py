"""Stripe's error envelope and the errors that this part of its API knows."""

from typing import Any

Json = dict[str, Any]


class StripeError(Exception):
    """An error answer. One about a parameter came before anything was executed, so that an idempotency
    key does not remember it."""

    def __init__(self, status: int, message: str, *, kind: str = "invalid_request_error", **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.error: Json = {"message": message, "type": kind} | more
        if "code" in more:
            self.error["doc_url"] = f"https://stripe.com/docs/error-codes/{more['code'].replace('_', '-')}"

    @property
    def executed(self) -> bool:
        return "param" not in self.error

    def envelope(self) -> Json:
        return {"error": self.error}


def bad_parameter(param: str, message: str, code: str | None = None) -> StripeError:
    return StripeError(400, message, param=param, **({"code": code} if code else {}))


def missing(kind: str, wanted: str, param: str, status: int = 404) -> StripeError:
    """`kind` as Stripe spells it in the message: payment_intent, event, PaymentMethod."""
    return StripeError(status, f"No such {kind}: '{wanted}'", code="resource_missing", param=param)


def unexpected_state(verb: str, intent: Json) -> StripeError:
    message = f"You cannot {verb} this PaymentIntent because it has a status of {intent['status']}."
    return StripeError(400, message, code="payment_intent_unexpected_state", payment_intent=intent)


def unauthorized(key: str) -> StripeError:
    if not key:
        return StripeError(401, "You did not provide an API key. Use Bearer auth with a secret test key.")
    return StripeError(401, f"Invalid API Key provided: {key[:8]}{'*' * 8}{key[-4:] if len(key) > 16 else ''}")


def unrecognized(method: str, path: str) -> StripeError:
    return StripeError(404, f"Unrecognized request URL ({method}: {path}).")
