"""The settings of Inventory."""

from __future__ import annotations

from dataclasses import dataclass

from services.chassis.settings import BrokerSettings, DatabaseSettings, Env, ProcessSettings
from services.inventory.store.holds import DEFAULT_LIMITS, Limits

MAX_LIMIT = 1_000_000


@dataclass(frozen=True)
class Settings:
    """Inventory's settings. Times are in seconds."""

    process: ProcessSettings
    database: DatabaseSettings
    broker: BrokerSettings
    grpc_port: int
    grpc_threads: int
    order_url: str
    sweep_seconds: float
    sweep_grace_seconds: float
    limits: Limits = DEFAULT_LIMITS

    @classmethod
    def read(cls, env: Env) -> Settings:
        """Read the common settings, `GRPC_*`, `ORDER_SERVICE_URL`, `SWEEP_*` and the limits of a user."""
        return cls(
            process=ProcessSettings.read(env, "inventory-service", 8080),
            database=DatabaseSettings.read(env),
            broker=BrokerSettings.read(env),
            grpc_port=env.integer("GRPC_PORT", 50051, low=1, high=65535),
            grpc_threads=env.integer("GRPC_THREADS", 16, low=1, high=256),
            order_url=env.text("ORDER_SERVICE_URL"),
            sweep_seconds=env.number("SWEEP_SECONDS", 5, low=0.05, high=60),
            sweep_grace_seconds=env.number("SWEEP_GRACE_SECONDS", 2, low=0, high=60),
            limits=Limits(
                max_holds=env.integer("MAX_HOLDS_PER_USER", DEFAULT_LIMITS.max_holds, high=MAX_LIMIT),
                max_tickets=env.integer("MAX_TICKETS_PER_USER", DEFAULT_LIMITS.max_tickets, high=MAX_LIMIT),
                wait_seconds=env.integer("REHOLD_WAIT_SECONDS", DEFAULT_LIMITS.wait_seconds, high=300),
            ),
        )
