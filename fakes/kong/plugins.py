"""The other plugins, and the order in which Kong 3.9 runs them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit
from uuid import uuid4

from fakes.kong import declarative
from fakes.kong.exchange import Exchange, Headers, drop, has, put
from fakes.kong.limiting import RateLimitingPlugin
from fakes.kong.refusals import Refusal
from fakes.kong.tokens import JwtPlugin

SIZE_UNITS = {"bytes": 1, "kilobytes": 2**10, "megabytes": 2**20}
DEFAULT_PORTS = {"http": 80, "https": 443}


class Handler(Protocol):
    """A configured plugin. `access` runs before the upstream is called, `answer` on whatever is sent back."""

    def access(self, exchange: Exchange) -> Refusal | None:
        """Go on (None), or answer in the upstream's place."""

    def answer(self, exchange: Exchange, headers: Headers) -> None:
        """Change the response's headers."""


def normalize_origin(origin: str) -> str:
    """An origin without its scheme's own port."""
    parts = urlsplit(origin)
    if not parts.hostname or parts.port == DEFAULT_PORTS.get(parts.scheme):
        return f"{parts.scheme}://{parts.hostname}" if parts.hostname else origin
    return f"{parts.scheme}://{parts.netloc}"


class CorsPlugin:
    """Answers preflights itself, which is why they need no token: it runs before jwt."""

    def __init__(self, config: declarative.CorsConfig) -> None:
        self._config = config
        self._origins = {normalize_origin(origin) for origin in config.origins}

    def access(self, exchange: Exchange) -> Refusal | None:
        """200 with the allowances for a preflight; other requests go on."""
        origin = exchange.header("Origin")
        if exchange.method != "OPTIONS" or not origin or not exchange.header("Access-Control-Request-Method"):
            return None
        exchange.preflight = True
        headers: Headers = []
        self._allow(origin, headers)
        requested = exchange.header("Access-Control-Request-Headers")
        if self._config.headers or requested:
            headers.append(("Access-Control-Allow-Headers", ",".join(self._config.headers) or requested))
        headers.append(("Access-Control-Allow-Methods", ",".join(self._config.methods)))
        if self._config.max_age is not None:
            headers.append(("Access-Control-Max-Age", str(self._config.max_age)))
        return Refusal(200, "", tuple(headers), b"", "")

    def answer(self, exchange: Exchange, headers: Headers) -> None:
        """Say which origin may read the response, and which of its headers."""
        if exchange.preflight:
            return
        self._allow(exchange.header("Origin"), headers)
        if self._config.exposed_headers:
            put(headers, "Access-Control-Expose-Headers", ",".join(self._config.exposed_headers))

    def _allow(self, origin: str, headers: Headers) -> None:
        headers.append(("Vary", "Origin"))
        drop(headers, "Access-Control-Allow-Origin")
        if len(self._config.origins) == 1:
            headers.append(("Access-Control-Allow-Origin", self._config.origins[0]))
        elif origin and normalize_origin(origin) in self._origins:
            headers.append(("Access-Control-Allow-Origin", normalize_origin(origin)))
        if self._config.credentials:
            put(headers, "Access-Control-Allow-Credentials", "true")


class IpRestrictionPlugin:
    """Refuses the addresses it is told to."""

    def __init__(self, config: declarative.IpRestrictionConfig) -> None:
        self._config = config
        self._denied = [ipaddress.ip_network(network) for network in config.deny]

    def access(self, exchange: Exchange) -> Refusal | None:
        """Kong cannot tell the address of a unix socket's peer, and refuses it too."""
        if not exchange.client:
            return Refusal(403, "Cannot identify the client IP address, unix domain sockets are not supported.")
        address = ipaddress.ip_address(exchange.client)
        if any(address in network for network in self._denied):
            return Refusal(self._config.status, self._config.message)
        return None

    def answer(self, exchange: Exchange, headers: Headers) -> None:
        """Nothing on the way back."""


class RequestSizeLimitingPlugin:
    """Refuses a body by its declared length; `gateway.py` counts those that declare none."""

    def __init__(self, config: declarative.RequestSizeLimitingConfig) -> None:
        self.limit = config.allowed_payload_size * SIZE_UNITS[config.size_unit]  # bytes

    def access(self, exchange: Exchange) -> Refusal | None:
        """413, or 417 for a client that waits to be told to go on."""
        length = exchange.environ.get("CONTENT_LENGTH") or "0"
        return self.refusal(exchange) if length.isdecimal() and int(length) > self.limit else None

    def refusal(self, exchange: Exchange) -> Refusal:
        """What a client with too long a body is told."""
        waits = exchange.header("Expect").lower() == "100-continue"
        return Refusal(417 if waits else 413, "Request size limit exceeded")

    def answer(self, exchange: Exchange, headers: Headers) -> None:
        """Nothing on the way back."""


class ResponseTransformerPlugin:
    """Adds headers that the response does not have."""

    def __init__(self, config: declarative.ResponseTransformerConfig) -> None:
        pairs = (header.partition(":") for header in config.add.headers)
        self._added = [(name, value) for name, _, value in pairs]

    def access(self, exchange: Exchange) -> Refusal | None:
        """Nothing on the way in."""
        return None

    def answer(self, exchange: Exchange, headers: Headers) -> None:
        """Add what is missing."""
        headers.extend(header for header in self._added if not has(headers, header[0]))


class CorrelationIdPlugin:
    """Passes on the client's id or makes one. Any text will do here: services replace what is not a UUID."""

    def __init__(self, config: declarative.CorrelationIdConfig) -> None:
        self._config = config

    def access(self, exchange: Exchange) -> Refusal | None:
        """Put the id on the upstream's request."""
        exchange.added[self._config.header_name] = self._id(exchange)
        return None

    def answer(self, exchange: Exchange, headers: Headers) -> None:
        """Echo it, also on what was refused before this plugin's turn."""
        if self._config.echo_downstream:
            put(headers, self._config.header_name, self._id(exchange))

    def _id(self, exchange: Exchange) -> str:
        if not exchange.correlation_id:
            exchange.correlation_id = exchange.header(self._config.header_name) or str(uuid4())
        return exchange.correlation_id


PRIORITIES: dict[type, int] = {
    declarative.Cors: 2000,
    declarative.Jwt: 1450,
    declarative.IpRestriction: 990,
    declarative.RequestSizeLimiting: 951,
    declarative.RateLimiting: 910,
    declarative.ResponseTransformer: 800,
    declarative.CorrelationId: 1,
}


def build(plugin: declarative.Plugin, consumers: Sequence[declarative.Consumer]) -> Handler:
    """The handler for one configured plugin."""
    match plugin:
        case declarative.Jwt():
            return JwtPlugin(plugin.config, consumers)
        case declarative.Cors():
            return CorsPlugin(plugin.config)
        case declarative.RateLimiting():
            return RateLimitingPlugin(plugin.config)
        case declarative.RequestSizeLimiting():
            return RequestSizeLimitingPlugin(plugin.config)
        case declarative.CorrelationId():
            return CorrelationIdPlugin(plugin.config)
        case declarative.IpRestriction():
            return IpRestrictionPlugin(plugin.config)
        case declarative.ResponseTransformer():
            return ResponseTransformerPlugin(plugin.config)
