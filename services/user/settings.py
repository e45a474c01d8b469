"""User's settings, from environment variables."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from services.chassis.errors import ConfigurationError
from services.chassis.settings import DatabaseSettings, Env, ProcessSettings
from services.user import passwords

MIN_HASH_KEY_BYTES = 32  # as long as its hash


@dataclass(frozen=True)
class Limits:
    """Limits on what one user may cost others. `.env.example` has their units."""

    passwords_at_once: int = 8
    login_failures: int = 5
    account_login_failures: int = 20
    codes_per_phone: int = 5
    codes_of_others: int = 6
    codes_to_others: int = 10
    refused_buyers: int = 3

    @classmethod
    def read(cls, env: Env) -> Limits:
        """Read `PASSWORDS_AT_ONCE`, `LOGIN_FAILURES_*`, `CODES_*` and `REFUSALS_PER_BUYER_IN_A_DAY`."""
        return cls(
            passwords_at_once=env.integer("PASSWORDS_AT_ONCE", 8, low=1, high=64),
            login_failures=env.integer("LOGIN_FAILURES_PER_ADDRESS_IN_5_MINUTES", 5, low=1),
            account_login_failures=env.integer("LOGIN_FAILURES_PER_ACCOUNT_IN_5_MINUTES", 20, low=1),
            codes_per_phone=env.integer("CODES_PER_PHONE_IN_10_MINUTES", 5),
            codes_of_others=env.integer("CODES_OF_OTHERS_PER_PHONE_IN_10_MINUTES", 6),
            codes_to_others=env.integer("CODES_TO_OTHERS_PER_HOUR", 10),
            refused_buyers=env.integer("REFUSALS_PER_BUYER_IN_A_DAY", 3),
        )


@dataclass(frozen=True)
class Settings:
    """User's settings: process, database, limits, and the addresses and keys of SMU and Stripe or of their fakes.

    `hash_key` hashes the addresses that logs and limits contain. Without the setting, each process has a random one, so
    its hashes equal those of no other process.
    """

    process: ProcessSettings
    database: DatabaseSettings
    smu_url: str
    smu_key: str = field(repr=False)
    stripe_base: str
    stripe_key: str = field(repr=False)
    stripe_webhook_secret: str = field(repr=False)
    staff_password: str = field(default="", repr=False)
    hash_key: str = field(repr=False, default_factory=lambda: secrets.token_hex(16))
    limits: Limits = Limits()

    @classmethod
    def read(cls, env: Env) -> Settings:
        """Read the process and database settings, the limits, and all other variables of User."""
        return cls(
            process=ProcessSettings.read(env, "user-service", 5000),
            database=DatabaseSettings.read(env),
            smu_url=_read_url(env, "SMU_API_URL"),
            smu_key=env.text("SMU_API_KEY"),
            stripe_base=_read_url(env, "STRIPE_API_BASE", "https://api.stripe.com"),
            stripe_key=env.text("STRIPE_SECRET_KEY"),
            stripe_webhook_secret=env.text("STRIPE_WEBHOOK_SECRET"),
            staff_password=_read_password(env, "STAFF_PASSWORD"),
            limits=Limits.read(env),
            hash_key=_read_hash_key(env, "ADDRESS_HASH_KEY"),
        )


def _read_hash_key(env: Env, name: str) -> str:
    key = env.text(name) if env.has(name) else secrets.token_hex(MIN_HASH_KEY_BYTES)
    if len(key.encode()) < MIN_HASH_KEY_BYTES:
        raise ConfigurationError(f"{name} is shorter than {MIN_HASH_KEY_BYTES} bytes")
    return key


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
