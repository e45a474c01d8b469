"""Clients of the fake Stripe: the official SDK, and plain HTTP for raw responses."""

from typing import Any

import requests
import stripe

from tests.support.fakes_control import Fake

KEY = "sk_test_the_right_one"
TOP_UP: dict[str, Any] = {
    "amount": 5000,
    "currency": "sgd",
    "metadata": {"user_id": "u-1"},
    "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
}


def client(server: Fake, key: str = KEY, **options: Any) -> stripe.StripeClient:
    return stripe.StripeClient(key, base_addresses={"api": server.url}, **{"max_network_retries": 0} | options)


def raw(server: Fake, path: str, key: str = KEY, **params: Any) -> requests.Response:
    return requests.get(server.url + path, params=params, auth=(key, ""), timeout=5)


def post(server: Fake, path: str, key: str | None = None, **params: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {KEY}"} | ({"Idempotency-Key": key} if key else {})
    return requests.post(server.url + path, data=params, headers=headers, timeout=5)


def event_types(server: Fake) -> list[str]:
    """Return the types of all events, oldest first."""
    return [event["type"] for event in raw(server, "/v1/events", limit=100).json()["data"]][::-1]
