"""The part of Kong 3.9's declarative schema that this fake serves. Any other value stops the start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import yaml
from msgspec import Meta

from fakes.kong.prefunction import is_known


class ConfigError(Exception):
    """Kong would refuse this file, or this fake would serve it differently. The message contains the place."""


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """A record without unknown fields, as in Kong's own schemas."""


Text = Annotated[str, Meta(min_length=1)]
Limit = Annotated[float, Meta(gt=0)]
Milliseconds = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Threshold = Annotated[int, Meta(ge=0, le=255)]
EmptyList = Annotated[list[str], Meta(max_length=0)]
Header = Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]+$")]
HeaderAndValue = Annotated[str, Meta(pattern=r"^[^:]+:.*$")]
Origin = Annotated[
    str, Meta(pattern=r"^https?://[A-Za-z0-9.:-]+$")
]  # regular expressions, which Kong supports, are not served
RoutePath = Annotated[str, Meta(pattern=r"^~?/")]


class JwtConfig(Strict):
    """Only ES256 tokens in headers. `maximum_expiration` is in seconds from now."""

    uri_param_names: EmptyList  # Kong's default is ["jwt"], so the file must set it to []
    cookie_names: EmptyList = []
    header_names: list[Header] = msgspec.field(default_factory=lambda: ["authorization"])
    key_claim_name: Text = "iss"
    claims_to_verify: list[Literal["exp", "nbf"]] = []
    maximum_expiration: Annotated[int, Meta(ge=0, le=31_536_000)] = 0
    secret_is_base64: Literal[False] = False
    run_on_preflight: bool = True
    anonymous: Text | None = None
    realm: Text | None = None


class CorsConfig(Strict):
    """Only literal origins."""

    origins: Annotated[list[Origin], Meta(min_length=1)]
    methods: Annotated[list[Text], Meta(min_length=1)]
    headers: list[Header] = []
    exposed_headers: list[Header] = []
    credentials: bool = False
    max_age: int | None = None
    preflight_continue: Literal[False] = False


class RateLimitingConfig(Strict):
    """Only `policy: local`, which counts in this process."""

    limit_by: Literal["ip", "header"]
    second: Limit | None = None
    minute: Limit | None = None
    hour: Limit | None = None
    day: Limit | None = None
    header_name: Header | None = None
    policy: Literal["local"] = "local"
    hide_client_headers: bool = False


class RequestSizeLimitingConfig(Strict):
    """`allowed_payload_size` has the unit `size_unit`."""

    allowed_payload_size: int = 128
    size_unit: Literal["megabytes", "kilobytes", "bytes"] = "megabytes"
    require_content_length: Literal[False] = False


class CorrelationIdConfig(Strict):
    """Only the generator `uuid`."""

    header_name: Header
    generator: Literal["uuid"]
    echo_downstream: bool = False


class IpRestrictionConfig(Strict):
    """Only a deny list. `status` and `message` are the response to a denied address."""

    deny: Annotated[list[Text], Meta(min_length=1)]
    status: Annotated[int, Meta(ge=400, le=599)] = 403
    message: Text = "Your IP address is not allowed"


class AddedHeaders(Strict):
    """Headers as `Name:value`. Each is added if the response has none of that name."""

    headers: Annotated[list[HeaderAndValue], Meta(min_length=1)]


class ResponseTransformerConfig(Strict):
    """Only `add.headers`."""

    add: AddedHeaders


class PreFunctionConfig(Strict):
    """Only the Lua program of `prefunction.py`."""

    access: list[Text]
    header_filter: list[Text]
    body_filter: list[Text]

    def __post_init__(self) -> None:
        for phase in ("access", "header_filter", "body_filter"):
            if not is_known(phase, getattr(self, phase)):
                raise ValueError(f"the Lua of {phase} is not the one of fakes/kong/prefunction.py")


class Jwt(Strict, tag_field="name", tag="jwt"):
    config: JwtConfig


class Cors(Strict, tag_field="name", tag="cors"):
    config: CorsConfig


class RateLimiting(Strict, tag_field="name", tag="rate-limiting"):
    config: RateLimitingConfig


class RequestSizeLimiting(Strict, tag_field="name", tag="request-size-limiting"):
    config: RequestSizeLimitingConfig


class CorrelationId(Strict, tag_field="name", tag="correlation-id"):
    config: CorrelationIdConfig


class IpRestriction(Strict, tag_field="name", tag="ip-restriction"):
    config: IpRestrictionConfig


class ResponseTransformer(Strict, tag_field="name", tag="response-transformer"):
    config: ResponseTransformerConfig


class PreFunction(Strict, tag_field="name", tag="pre-function"):
    config: PreFunctionConfig


EarlyPlugin = PreFunction | Jwt | Cors  # these run before a consumer is known
LatePlugin = RateLimiting | RequestSizeLimiting | CorrelationId | IpRestriction | ResponseTransformer
Plugin = EarlyPlugin | LatePlugin


class Route(Strict):
    """A route. A path is a prefix or, after `~`, a regular expression anchored at its start."""

    name: Text
    paths: Annotated[list[RoutePath], Meta(min_length=1)]
    strip_path: Literal[False]  # Kong's default is true, so the file must set it to false
    methods: list[Text] | None = None
    regex_priority: int = 0
    plugins: list[Plugin] = []


class Target(Strict):
    """The address of one replica, as host:port. All have the same weight."""

    target: Annotated[str, Meta(pattern=r"^[A-Za-z0-9.-]+:[0-9]+$")]


class HealthyProbes(Strict):
    """When a target is healthy again. `interval` is in seconds between two probes, and 0 switches them off."""

    interval: Seconds = 0
    http_statuses: list[int] = msgspec.field(default_factory=lambda: [200, 302])
    successes: Threshold = 0


class UnhealthyProbes(Strict):
    """When probes make a target unhealthy. A limit of 0 is off."""

    interval: Seconds = 0
    http_statuses: list[int] = msgspec.field(default_factory=lambda: [429, 404, 500, 501, 502, 503, 504, 505])
    tcp_failures: Threshold = 0
    timeouts: Threshold = 0
    http_failures: Threshold = 0


class ActiveChecks(Strict):
    """Probes of `http_path`. `timeout` is in seconds."""

    http_path: Annotated[str, Meta(pattern=r"^/")] = "/"
    timeout: Annotated[float, Meta(gt=0)] = 1
    type: Literal["http"] = "http"
    healthy: HealthyProbes = msgspec.field(default_factory=HealthyProbes)
    unhealthy: UnhealthyProbes = msgspec.field(default_factory=UnhealthyProbes)


class UnhealthyResponses(Strict):
    """When the responses to clients make a target unhealthy. A limit of 0 is off."""

    http_statuses: list[int] = msgspec.field(default_factory=lambda: [429, 500, 503])
    tcp_failures: Threshold = 0
    timeouts: Threshold = 0
    http_failures: Threshold = 0


class PassiveChecks(Strict):
    """Only `unhealthy`, because only a probe makes a target healthy again."""

    type: Literal["http"] = "http"
    unhealthy: UnhealthyResponses = msgspec.field(default_factory=UnhealthyResponses)


class Checks(Strict):
    """The health checks of an upstream."""

    active: ActiveChecks = msgspec.field(default_factory=ActiveChecks)
    passive: PassiveChecks = msgspec.field(default_factory=PassiveChecks)


class Upstream(Strict):
    """The targets of a service, which get requests in turn."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9.-]*$")]
    targets: Annotated[list[Target], Meta(min_length=1)]
    algorithm: Literal["round-robin"] = "round-robin"
    healthchecks: Checks = msgspec.field(default_factory=Checks)


class Service(Strict):
    """A service. `host` names its upstream. Timeouts are in milliseconds. `retries` does not count the first try."""

    name: Text
    host: Text
    protocol: Literal["http"] = "http"
    connect_timeout: Milliseconds = 60000
    read_timeout: Milliseconds = 60000
    write_timeout: Milliseconds = 60000
    retries: Annotated[int, Meta(ge=0)] = 5
    routes: list[Route] = []
    plugins: list[Plugin] = []


class JwtSecret(Strict):
    """A public key that verifies a consumer's tokens, in PEM. Kong's field has the name of another algorithm."""

    key: Text
    algorithm: Literal["ES256"]
    rsa_public_key: Text


class Consumer(Strict):
    """A consumer, which may call the routes."""

    username: Text
    jwt_secrets: list[JwtSecret] = []
    plugins: list[Plugin] = []


class Config(Strict, rename={"format_version": "_format_version"}):
    """The whole file."""

    format_version: Literal["3.0"]
    services: Annotated[list[Service], Meta(min_length=1)]
    upstreams: list[Upstream]
    consumers: list[Consumer] = []
    plugins: list[Plugin] = []


def _refuse_duplicates(noun: str, names: Iterable[object]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ConfigError(f"{noun} given more than once: {', '.join(map(str, repeated))}")


def scopes(config: Config) -> Iterable[tuple[str, list[Plugin]]]:
    """List every scope with its name and plugins."""
    yield "global scope", config.plugins
    for service in config.services:
        yield f"service {service.name}", service.plugins
        for route in service.routes:
            yield f"route {route.name}", route.plugins
    for consumer in config.consumers:
        yield f"consumer {consumer.username}", consumer.plugins


def _check_plugins(where: str, plugins: list[Plugin], consumers: set[str]) -> None:
    _refuse_duplicates(f"plugin at {where}", (type(plugin).__name__ for plugin in plugins))
    for plugin in plugins:
        if where.startswith("consumer") and isinstance(plugin, EarlyPlugin):
            raise ConfigError(f"{where}: {type(plugin).__name__} runs before a consumer is known")
        if isinstance(plugin, Jwt) and plugin.config.anonymous not in consumers | {None}:
            raise ConfigError(f"{where}: anonymous consumer {plugin.config.anonymous!r} is unknown")
        if isinstance(plugin, Jwt) and plugin.config.maximum_expiration and "exp" not in plugin.config.claims_to_verify:
            raise ConfigError(f"{where}: maximum_expiration needs exp in claims_to_verify")
        if isinstance(plugin, RateLimiting):
            _check_limits(where, plugin.config)


def _check_limits(where: str, config: RateLimitingConfig) -> None:
    limits = [limit for limit in (config.second, config.minute, config.hour, config.day) if limit]
    if not limits or limits != sorted(limits):
        raise ConfigError(f"{where}: rate-limiting needs a limit, and a longer period must not have a lower one")
    if config.limit_by == "header" and not config.header_name:
        raise ConfigError(f"{where}: rate-limiting by header needs header_name")


def _check_upstreams(config: Config) -> None:
    names = {upstream.name for upstream in config.upstreams}
    for service in config.services:
        if service.host not in names:
            raise ConfigError(f"service {service.name}: this fake serves no host {service.host!r} but upstreams")
    for upstream in config.upstreams:
        _refuse_duplicates(f"target of {upstream.name}", (target.target for target in upstream.targets))
        active = upstream.healthchecks.active
        if bool(active.healthy.interval) != bool(active.unhealthy.interval):
            raise ConfigError(f"upstream {upstream.name}: this fake has probes for both states or for none")


def check(config: Config) -> None:
    """Check duplicates and references between records. Raises ConfigError."""
    routes = [route for service in config.services for route in service.routes]
    _refuse_duplicates("service", (service.name for service in config.services))
    _refuse_duplicates("upstream", (upstream.name for upstream in config.upstreams))
    _refuse_duplicates("route", (route.name for route in routes))
    _refuse_duplicates("path", ((p, m) for r in routes for p in r.paths for m in r.methods or ["any method"]))
    _refuse_duplicates("consumer", (consumer.username for consumer in config.consumers))
    _refuse_duplicates("jwt key", (secret.key for consumer in config.consumers for secret in consumer.jwt_secrets))
    _check_upstreams(config)
    consumers = {consumer.username for consumer in config.consumers}
    for where, plugins in scopes(config):
        _check_plugins(where, plugins, consumers)


def load(path: Path) -> Config:
    """Load the rendered file at `path`. Raises ConfigError for a value that this fake cannot serve."""
    try:
        config = msgspec.convert(yaml.load(path.read_text(), yaml.CSafeLoader), Config)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        check(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return config
