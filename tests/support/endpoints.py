"""Every route and RPC of the services, read from their own apps, so that new ones are included."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from flask import Flask

from services.chassis.access import Policy
from services.chassis.settings import Env
from services.contracts.pb import inventory_pb2
from services.event import app as event
from services.event.settings import Settings as EventSettings
from services.inventory import app as inventory
from services.inventory.servicer import Inventory
from services.inventory.settings import Settings as InventorySettings
from services.orchestrator import app as orchestrator
from services.orchestrator.settings import Settings as OrchestratorSettings
from services.order import app as order
from services.order.settings import Settings as OrderSettings
from services.user import app as user
from services.user.settings import Settings as UserSettings
from tests.support.service_settings import key_environment

AN_ID = "5ea70001-0000-0000-0000-000000000100"
CALLERS = ("user-service", "order-service", "event-service", "inventory-service", "orchestrator-service")
UNREACHABLE = "http://127.0.0.1:9"  # the apps are built but never served
FRAME = ("/health", "/health/live", "/metrics")
_SECRET = "x" * 32
_ENVIRONMENT = {
    "QR_ENCRYPTION_KEY": _SECRET,
    **dict.fromkeys(("DB_HOST", "RABBITMQ_HOST"), "127.0.0.1"),
    **dict.fromkeys(("DB_NAME", "DB_USER", "DB_PASS", "RABBITMQ_USER", "RABBITMQ_PASS"), "none"),
    **dict.fromkeys(("SMU_API_KEY", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET"), _SECRET),
    **dict.fromkeys(("USER_SERVICE_URL", "ORDER_SERVICE_URL", "EVENT_SERVICE_URL"), UNREACHABLE),
    **dict.fromkeys(("INVENTORY_HTTP_URL", "SMU_API_URL", "STRIPE_API_BASE"), UNREACHABLE),
    "INVENTORY_SERVICE_URL": "127.0.0.1:9",
    "BIND": "127.0.0.1",
}


@dataclass(frozen=True)
class Route:
    """One method and path of a service, with its access policy."""

    service: str
    method: str
    rule: str
    policy: Policy

    @property
    def path(self) -> str:
        """The path, with a valid id for its placeholder."""
        return self.with_id(AN_ID)

    def with_id(self, text: str) -> str:
        """The path, with `text` for its placeholder."""
        before, _, after = self.rule.partition("<")
        return before + text + after.partition(">")[2] if after else before

    @property
    def takes_id(self) -> bool:
        """Whether the path contains an id."""
        return "<" in self.rule

    @property
    def for_users(self) -> bool:
        """Whether a user's token gives access."""
        return bool(self.policy.roles)

    def __str__(self) -> str:
        return f"{self.method} {self.rule}"


@lru_cache(maxsize=1)
def routes() -> tuple[Route, ...]:
    """All routes except health and metrics."""
    apps = {
        "user-service": user.build(UserSettings.read(_read_env("user-service"))),
        "order-service": order.build(OrderSettings.read(_read_env("order-service"))),
        "event-service": event.build(EventSettings.read(_read_env("event-service"))),
        "inventory-service": inventory.build(
            replace(InventorySettings.read(_read_env("inventory-service")), grpc_port=0)
        ),
        "orchestrator-service": orchestrator.build(OrchestratorSettings.read(_read_env("orchestrator-service"))),
    }
    return tuple(route for service, app in apps.items() for route in _of(service, app))


def _read_env(service: str) -> Env:
    return Env({**_ENVIRONMENT, **key_environment(service)})


def _of(service: str, app: Flask) -> Iterable[Route]:
    for rule in app.url_map.iter_rules():
        if rule.rule not in FRAME:
            view: Any = app.view_functions[rule.endpoint]
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield Route(service, method, rule.rule, view.policy)


def public() -> list[Route]:
    """The routes that the gateway publishes."""
    return [route for route in routes() if route.rule.startswith("/api/")]


def internal() -> list[Route]:
    """The routes that services call over HTTP."""
    return [route for route in routes() if route.policy.callers]


def rpcs() -> dict[str, tuple[str, ...]]:
    """The gRPC methods of Inventory, each with the services that may call it."""
    methods = inventory_pb2.DESCRIPTOR.services_by_name["Inventory"].methods
    return {method.name: getattr(Inventory, method.name).callers for method in methods}
