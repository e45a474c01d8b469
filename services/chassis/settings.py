"""Settings: frozen dataclasses that a process reads once from its environment. A bad value stops it with one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn, TypeVar

from services.chassis.errors import ConfigurationError
from services.chassis.keys import PublicKeys, SigningKey

T = TypeVar("T")
USER = "user-service"
PLACEHOLDERS = ("change_me", "your_", "changeme")  # of the v4 reference (§10), whose keys also end in "..."


class Address(NamedTuple):
    """The address of a server. The host of PostgreSQL may be the directory of its unix socket."""

    host: str
    port: int


class Env:
    """Reads values from one environment and explains each bad one."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = os.environ if values is None else values

    def has(self, name: str) -> bool:
        """True if `name` is set and not empty."""
        return bool(self._values.get(name))

    def text(self, name: str, default: str | None = None) -> str:
        """The value of `name`.

        Raises ConfigurationError for a placeholder, and for an unset or empty value without a default.
        """
        value = self._values.get(name) or default
        if value is None:
            raise ConfigurationError(f"{name} is not set: set it in the environment (see .env.example)")
        if value.lower().startswith(PLACEHOLDERS) or value.endswith("..."):
            raise ConfigurationError(f"{name} still holds its placeholder: put a real value there")
        return value

    def number(self, name: str, default: float | None = None, *, low: float = 0, high: float = 1e9) -> float:
        """A number within [low, high]. Raises ConfigurationError otherwise."""
        raw = self.text(name, None if default is None else str(default))
        try:
            value = float(raw)
        except ValueError:
            raise ConfigurationError(f"{name}={raw!r} is not a number") from None
        if not low <= value <= high:
            raise ConfigurationError(f"{name}={raw} is outside {low:g}..{high:g}")
        return value

    def integer(self, name: str, default: int | None = None, *, low: int = 0, high: int = 10**9) -> int:
        """A whole number within [low, high]. Raises ConfigurationError otherwise."""
        value = self.number(name, default, low=low, high=high)
        if value != int(value):
            raise ConfigurationError(f"{name}={value} is not a whole number")
        return int(value)

    def addresses(self, hosts: str, ports: str, default: int) -> tuple[Address, ...]:
        """One address, or one for each node of a cluster, from the comma-separated lists `hosts` and `ports`.

        A single port applies to every host. Raises ConfigurationError for an empty entry, a bad port or another number
        of ports.
        """
        names, numbers = self._entries(hosts), self._entries(ports, str(default))
        if len(numbers) not in (1, len(names)):
            raise ConfigurationError(
                f"{ports} lists {len(numbers)} ports, and {hosts} {len(names)} hosts: set one port or one for each"
            )
        valid = [Env({ports: number}).integer(ports, low=1, high=65535) for number in numbers]
        return tuple(map(Address, names, valid * len(names)))

    def _entries(self, name: str, default: str | None = None) -> list[str]:
        entries = [entry.strip() for entry in self.text(name, default).split(",")]
        if "" in entries:
            raise ConfigurationError(f"{name}={self.text(name, default)!r} has an empty entry")
        return entries

    def signing_key(self, name: str) -> SigningKey:
        """A private key. Raises ConfigurationError otherwise."""
        try:
            return SigningKey.parse(self.text(name))
        except (ValueError, TypeError):
            raise ConfigurationError(f"{name} is not a private key: see .env.example") from None

    def public_keys(self, name: str, owner: str = "") -> PublicKeys:
        """Public keys of `owner`, or of the services that the value names. Raises ConfigurationError otherwise."""
        try:
            return PublicKeys.parse(self.text(name), owner)
        except ValueError:
            raise ConfigurationError(f"{name} is not a list of public keys: see .env.example") from None

    def key(self, name: str, default: str | None = None) -> bytes:
        """An AES-256 key of exactly 32 bytes. Raises ConfigurationError otherwise."""
        value = self.text(name, default).encode()
        if len(value) != 32:
            raise ConfigurationError(f"{name} must be exactly 32 bytes, not {len(value)}")
        return value


@dataclass(frozen=True)
class ProcessSettings:
    """The settings of every service process."""

    service: str
    port: int
    bind: str
    private_key: SigningKey
    user_keys: PublicKeys  # User's, which verify user tokens
    service_keys: PublicKeys  # of the services that call others
    log_level: str
    threads: int

    @property
    def share(self) -> int:
        """The number of threads that may wait for one neighbour. The others stay free for other work."""
        return max(4, self.threads // 4)

    @classmethod
    def read(cls, env: Env, service: str, port: int) -> ProcessSettings:
        """Read `PORT`, `BIND`, `LOG_LEVEL`, `WEB_THREADS`, the service's private key and the public keys."""
        private_key = env.signing_key("PRIVATE_KEY")
        user_keys = env.public_keys("USER_PUBLIC_KEYS", USER)
        service_keys = env.public_keys("SERVICE_PUBLIC_KEYS")
        listed = (user_keys if service == USER else service_keys).owners
        if listed.get(private_key.key_id) != service:
            raise ConfigurationError(f"no public key of {service} belongs to PRIVATE_KEY: see .env.example")
        return cls(
            service=service,
            port=env.integer("PORT", port, low=1, high=65535),
            bind=env.text("BIND", "0.0.0.0"),  # noqa: S104 - in its container a service listens on every address
            private_key=private_key,
            user_keys=user_keys,
            service_keys=service_keys,
            log_level=env.text("LOG_LEVEL", "INFO").upper(),
            threads=env.integer("WEB_THREADS", 32, low=1, high=512),
        )


@dataclass(frozen=True)
class DatabaseSettings:
    """The addresses and limits of the service's own database. Times are in milliseconds."""

    addresses: tuple[Address, ...]  # of each node of a cluster, of which one accepts writes
    name: str
    user: str
    password: str = field(repr=False)
    pool_size: int = 8
    lock_timeout_ms: int = 1000
    statement_timeout_ms: int = 4000
    standbys: int = 0  # behind a single address, as that of an operator

    @property
    def has_standbys(self) -> bool:
        """Whether another node can take over, so that the one that answers may be an old leader."""
        return len(self.addresses) > 1 or self.standbys > 0

    @classmethod
    def read(cls, env: Env) -> DatabaseSettings:
        """Read `DB_HOST` `DB_PORT` `DB_NAME` `DB_USER` `DB_PASS` `DB_POOL_SIZE` `DB_STANDBYS`."""
        return cls(
            addresses=env.addresses("DB_HOST", "DB_PORT", 5432),
            name=env.text("DB_NAME"),
            user=env.text("DB_USER"),
            password=env.text("DB_PASS"),
            pool_size=env.integer("DB_POOL_SIZE", 8, low=1, high=200),
            standbys=env.integer("DB_STANDBYS", 0, high=100),
        )


@dataclass(frozen=True)
class BrokerSettings:
    """The addresses and credentials of RabbitMQ."""

    addresses: tuple[Address, ...]  # of each node of a cluster
    user: str
    password: str = field(repr=False)

    @classmethod
    def read(cls, env: Env) -> BrokerSettings:
        """Read `RABBITMQ_HOST` `RABBITMQ_PORT` `RABBITMQ_USER` `RABBITMQ_PASS`."""
        return cls(
            addresses=env.addresses("RABBITMQ_HOST", "RABBITMQ_PORT", 5672),
            user=env.text("RABBITMQ_USER"),
            password=env.text("RABBITMQ_PASS"),
        )


def read_or_exit(read: Callable[[Env], T]) -> T:
    """Read settings, or exit with one line that names the bad value."""
    try:
        return read(Env())
    except ConfigurationError as error:
        _stop(error)


def _stop(error: ConfigurationError) -> NoReturn:
    sys.exit(f"configuration: {error}")
