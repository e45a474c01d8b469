"""The orchestrator's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

from services.chassis.settings import BrokerSettings, DatabaseSettings, Env, ProcessSettings
from services.orchestrator.tickets.scan_rules import Admission

SERVICE = "orchestrator-service"
YEAR_HOURS = 8784
MAX_HOLD_SECONDS = 300  # the TTL of the hold queue is the upper bound (§8)


@dataclass(frozen=True)
class Settings:
    """The addresses of the services, the length of a hold, and the time limits of a saga in seconds."""

    process: ProcessSettings
    database: DatabaseSettings
    broker: BrokerSettings
    inventory_address: str
    user_url: str
    order_url: str
    event_url: str
    hold_ttl_seconds: int
    forward_seconds: float
    resolve_seconds: float
    park_seconds: float
    notices_at_once: int
    qr_key: bytes = field(repr=False)
    qr_previous_key: bytes | None = field(repr=False, default=None)
    admission: Admission = field(default_factory=Admission)
    resale_max_multiple: Decimal = Decimal(0)
    expensive_calls: int = 0  # of one user in a minute (0: no limit)
    expensive_calls_of_address: int = 0

    @property
    def deadline_seconds(self) -> float:
        """Seconds after which any process can adopt a saga, because its request has given up by then."""
        return self.forward_seconds + self.resolve_seconds + 1

    @classmethod
    def read(cls, env: Env) -> Settings:
        """Read the environment. Raises ConfigurationError."""
        previous = env.key("QR_ENCRYPTION_KEY_PREVIOUS") if env.has("QR_ENCRYPTION_KEY_PREVIOUS") else None
        return cls(
            process=ProcessSettings.read(env, SERVICE, 5003),
            database=DatabaseSettings.read(env),
            broker=BrokerSettings.read(env),
            inventory_address=env.text("INVENTORY_SERVICE_URL"),
            user_url=env.text("USER_SERVICE_URL"),
            order_url=env.text("ORDER_SERVICE_URL"),
            event_url=env.text("EVENT_SERVICE_URL"),
            hold_ttl_seconds=env.integer("HOLD_TTL_SECONDS", MAX_HOLD_SECONDS, low=1, high=MAX_HOLD_SECONDS),
            forward_seconds=env.number("SAGA_FORWARD_SECONDS", 4, low=0.1, high=60),
            resolve_seconds=env.number("SAGA_RESOLVE_SECONDS", 3, low=0.1, high=60),
            park_seconds=env.number("SAGA_PARK_SECONDS", 120, low=0.1, high=86400),
            notices_at_once=env.integer("NOTICES_AT_ONCE", 24, low=1, high=64),
            qr_key=env.key("QR_ENCRYPTION_KEY"),
            qr_previous_key=previous,
            admission=_read_admission(env),
            expensive_calls=env.integer("EXPENSIVE_CALLS_PER_USER_AND_MINUTE", 60),
            expensive_calls_of_address=env.integer("EXPENSIVE_CALLS_PER_ADDRESS_AND_MINUTE", 3000),
            resale_max_multiple=Decimal(str(env.number("RESALE_MAX_MULTIPLE", 0, high=1000))),
        )


def _read_admission(env: Env) -> Admission:
    opens_hours = env.number("ADMISSION_OPENS_HOURS", 0, high=YEAR_HOURS)
    return Admission(
        grace=timedelta(hours=env.number("ADMISSION_GRACE_HOURS", 24, high=YEAR_HOURS)),
        opens_before=timedelta(hours=opens_hours) if opens_hours else None,
    )
