"""The other plugins, and the priorities of all plugins in Kong 3.9."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit
from uuid import uuid4

from fakes.kong import declarative
from fakes.kong.exchange import Exchange, Headers, drop, has, put
from fakes.kong.limiting import RateLimitingPlugin
from fakes.kong.prefunction import PreFunctionPlugin
from fakes.kong.refusals import Refusal
from fakes.kong.tokens import JwtPlugin

SIZE_UNITS = {"bytes": 1, "kilobytes": 2**10, "megabytes": 2**20}
DEFAULT_PORTS = {"http": 80, "https": 443}


class Handler(Protocol):
    """A configured plugin with Kong's phases: `access` before the upstream call, `header_filter` on each response."""

    def access(self, exchange: Exchange) -> Refusal | None:
        """Return None, or the response instead of the upstream's."""

    def header_filter(self, exchange: Exchange, headers: Headers) -> None:
        """Change the response headers."""


def normalize_origin(origin: str) -> str:
    """Remove the default port of the scheme."""
    parts = urlsplit(origin)
    if not parts.hostname or parts.port == DEFAULT_PORTS.get(parts.scheme):
        return f"{parts.scheme}://{parts.hostname}" if parts.hostname else origin
    return f"{parts.scheme}://{parts.netloc}"


class CorsPlugin:
    """The plugin cors. It answers preflights before jwt runs, so they need no token."""

    def __init__(self, config: declarative.CorsConfig) -> None:
        self._config = config
        self._origins = {normalize_origin(origin) for origin in config.origins}

    def access(self, exchange: Exchange) -> Refusal | None:
        """Answer a preflight with 200 and the allowed values."""
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

    def header_filter(self, exchange: Exchange, headers: Headers) -> None:
        """Add the allowed origin and the exposed headers."""
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
    """The plugin ip-restriction with a deny list."""

    def __init__(self, config: declarative.IpRestrictionConfig) -> None:
        self._config = config
        self._denied = [ipaddress.ip_network(network) for network in config.deny]

    def access(self, exchange: Exchange) -> Refusal | None:
        """Refuse a denied address. Kong also refuses clients on a unix socket, which have no address."""
        if not exchange.client:
            return Refusal(403, "Cannot identify the client IP address, unix domain sockets are not supported.")
        address = ipaddress.ip_address(exchange.client)
        if any(address in network for network in self._denied):
            return Refusal(self._config.status, self._config.message)
        return None

    def header_filter(self, exchange: Exchange, headers: Headers) -> None:
        """Change nothing."""


class RequestSizeLimitingPlugin:
    """Refuses a body by its declared length. `gateway.py` counts chunked bodies."""

    def __init__(self, config: declarative.RequestSizeLimitingConfig) -> None:
        self.limit = config.allowed_payload_size * SIZE_UNITS[config.size_unit]  # bytes

    def access(self, exchange: Exchange) -> Refusal | None:
        """Refuse a too long body with 413, or with 417 if the client waits for 100 Continue."""
        length = exchange.environ.get("CONTENT_LENGTH") or "0"
        return self.build_refusal(exchange) if length.isdecimal() and int(length) > self.limit else None

    def build_refusal(self, exchange: Exchange) -> Refusal:
        """Build the refusal of a too long body."""
        is_waiting = exchange.header("Expect").lower() == "100-continue"
        return Refusal(417 if is_waiting else 413, "Request size limit exceeded")

    def header_filter(self, exchange: Exchange, headers: Headers) -> None:
        """Change nothing."""


class ResponseTransformerPlugin:
    """The plugin response-transformer, which adds missing headers."""

    def __init__(self, config: declarative.ResponseTransformerConfig) -> None:
        pairs = (header.partition(":") for header in config.add.headers)
        self._added = [(name, value) for name, _, value in pairs]

    def access(self, exchange: Exchange) -> Refusal | None:
        """Do nothing."""
        return None

    def header_filter(self, exchange: Exchange, headers: Headers) -> None:
        """Add the missing headers."""
        headers.extend(header for header in self._added if not has(headers, header[0]))


class CorrelationIdPlugin:
    """The plugin correlation-id. As in Kong, it accepts any text of the client."""

    def __init__(self, config: declarative.CorrelationIdConfig) -> None:
        self._config = config

    def access(self, exchange: Exchange) -> Refusal | None:
        """Add the id to the upstream request."""
        exchange.added[self._config.header_name] = self._id(exchange)
        return None

    def header_filter(self, exchange: Exchange, headers: Headers) -> None:
        """Echo the id, also on a response that was refused before this plugin ran."""
        if self._config.echo_downstream:
            put(headers, self._config.header_name, self._id(exchange))

    def _id(self, exchange: Exchange) -> str:
        if not exchange.correlation_id:
            exchange.correlation_id = exchange.header(self._config.header_name) or str(uuid4())
        return exchange.correlation_id


PRIORITIES: dict[type, int] = {
    declarative.PreFunction: 1_000_000,
    declarative.Cors: 2000,
    declarative.Jwt: 1450,
    declarative.IpRestriction: 990,
    declarative.RequestSizeLimiting: 951,
    declarative.RateLimiting: 910,
    declarative.ResponseTransformer: 800,
    declarative.CorrelationId: 1,
}


def build(plugin: declarative.Plugin, consumers: Sequence[declarative.Consumer]) -> Handler:
    """Build the handler of a configured plugin."""
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
        case declarative.PreFunction():
            return PreFunctionPlugin()
