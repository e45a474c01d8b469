"""User's settings, from environment variables."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.chassis.errors import ConfigurationError
from services.chassis.settings import DatabaseSettings, Env, ProcessSettings
from services.user import passwords


@dataclass(frozen=True)
class Settings:
    """User's settings: process, database, and the addresses and keys of SMU and Stripe or of their fakes."""

    process: ProcessSettings
    database: DatabaseSettings
    smu_url: str
    smu_key: str = field(repr=False)
    stripe_base: str
    stripe_key: str = field(repr=False)
    stripe_webhook_secret: str = field(repr=False)
    staff_password: str = field(default="", repr=False)

    @classmethod
    def read(cls, env: Env) -> Settings:
        """Read the process and database settings, `SMU_API_*`, `STRIPE_*` and `STAFF_PASSWORD`."""
        return cls(
            process=ProcessSettings.read(env, "user-service", 5000),
            database=DatabaseSettings.read(env),
            smu_url=_read_url(env, "SMU_API_URL"),
            smu_key=env.text("SMU_API_KEY"),
            stripe_base=_read_url(env, "STRIPE_API_BASE", "https://api.stripe.com"),
            stripe_key=env.text("STRIPE_SECRET_KEY"),
            stripe_webhook_secret=env.text("STRIPE_WEBHOOK_SECRET"),
            staff_password=_read_password(env, "STAFF_PASSWORD"),
        )


def _read_password(env: Env, name: str) -> str:
    """A good password, or an empty text if it is not set."""
    password = env.text(name) if env.has(name) else ""
    try:
        if password:
            passwords.require_good(password)
    except ValueError as problem:
        raise ConfigurationError(f"{name}: {problem}") from None
    return password


def _read_url(env: Env, name: str, default: str | None = None) -> str:
    value = env.text(name, default).rstrip("/")
    if not value.startswith(("http://", "https://")):
        raise ConfigurationError(f"{name}={value!r} is not an http(s) address, such as http://host:port")
    return value
