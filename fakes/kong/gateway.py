"""The WSGI application. A request passes the router, plugins, upstream, and the plugins' header filters."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fakes.kong import plugins
from fakes.kong.balancer import Balancer
from fakes.kong.declarative import Config, Consumer, EarlyPlugin, Plugin, Route, scopes
from fakes.kong.exchange import Exchange, Headers, put
from fakes.kong.plugins import Handler, RequestSizeLimitingPlugin
from fakes.kong.prefunction import PreFunctionPlugin
from fakes.kong.receiving import DEADLINES
from fakes.kong.refusals import Refusal, Templates
from fakes.kong.router import Router, normalize
from fakes.kong.upstream import Reply, Upstream

Environ = dict[str, Any]
Log = Callable[[str, str, str], None]  # level, correlation id, message
VIA = "1.1 kong/3.9.1"
HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
OWN_REQUEST_HEADERS = HOP_BY_HOP | {"host", "content-length", "proxy", "expect"}
OWN_RESPONSE_HEADERS = HOP_BY_HOP | {"date", "server"}  # gunicorn writes these two
NO_BODY = frozenset((204, 304))
STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


@dataclass(frozen=True)
class Pipeline:
    """A route's plugins in order: first those that find the consumer, then those of each consumer."""

    upstream: Upstream
    first: list[Handler]
    then: dict[str | None, list[Handler]]


class Gateway:
    """Serves one declarative configuration."""

    def __init__(self, config: Config, templates: Templates, log: Log) -> None:
        self._templates = templates
        self._log = log
        self._balancers = {upstream.name: Balancer(upstream) for upstream in config.upstreams}
        self._router = Router(_build_pipelines(config, self._balancers))

    def start_checks(self) -> None:
        """Start the active health checks. Call it once, in the process that serves."""
        for balancer in self._balancers.values():
            balancer.start_checks()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Handle one request."""
        began = time.perf_counter()
        raw, _, query = environ["RAW_URI"].partition("?")
        exchange = Exchange(environ, environ["REQUEST_METHOD"], normalize(raw))
        pipeline = self._router.match(exchange.method, exchange.path) if raw.startswith("/") else None
        if pipeline is None:
            outcome: Reply | Refusal = Refusal(404, "no Route matched with those values")
        else:
            outcome = _run(pipeline, exchange, raw, f"?{query}" if "?" in environ["RAW_URI"] else "")
        if isinstance(outcome, Refusal):
            exchange.refused_status = outcome.status
        reply = self._render(outcome, exchange) if isinstance(outcome, Refusal) else outcome
        headers = _build_response_headers(pipeline, exchange, reply)
        body = _filter_body(pipeline, exchange, headers, reply.body)
        start_response(STATUS_LINES.get(reply.status) or f"{reply.status} {reply.reason}", headers)
        self._log_request(exchange, pipeline, outcome, time.perf_counter() - began)
        return [body]

    def _render(self, refusal: Refusal, exchange: Exchange) -> Reply:
        _drain_body(exchange)
        content_type, body = refusal.content_type, refusal.body
        if body is None:
            accept = exchange.header("Accept")
            if (
                not accept and refusal.status >= 502
            ):  # Kong's error page, unlike its plugins, then uses the Content-Type
                accept = exchange.environ.get("CONTENT_TYPE", "")
            content_type, body = self._templates.fill(accept, refusal.message, exchange.request_id)
        headers = [*refusal.headers, ("Content-Type", content_type)] if content_type else [*refusal.headers]
        return Reply(refusal.status, "", headers, body)

    def _log_request(
        self, exchange: Exchange, pipeline: Pipeline | None, outcome: Reply | Refusal, seconds: float
    ) -> None:
        """Log one line without query and headers, so without tokens."""
        text = f"{exchange.method} {exchange.path} {outcome.status} in {seconds * 1000:.1f} ms"
        level = "INFO"
        if isinstance(outcome, Refusal) and outcome.status >= 400:
            level = "ERROR" if outcome.status >= 500 else "WARNING"
            text += f", refused: {exchange.log_reason or outcome.message}"
        elif isinstance(outcome, Reply) and pipeline is not None:
            text += f" → {pipeline.upstream.name}"
        self._log(level, exchange.correlation_id or exchange.request_id, text)


def _build_pipelines(config: Config, balancers: Mapping[str, Balancer]) -> Iterable[tuple[Route, Pipeline]]:
    # One handler per configured plugin, because a global rate limit counts across routes.
    handlers = {id(p): plugins.build(p, config.consumers) for _, scope in scopes(config) for p in scope}
    callers: list[Consumer | None] = [None, *config.consumers]
    for service in config.services:
        upstream = Upstream(service, balancers[service.host])
        for route in service.routes:
            chains = {
                consumer.username if consumer else None: _chain(
                    config.plugins, service.plugins, route.plugins, consumer.plugins if consumer else []
                )
                for consumer in callers
            }
            yield (
                route,
                Pipeline(
                    upstream,
                    [handlers[id(plugin)] for plugin in chains[None] if isinstance(plugin, EarlyPlugin)],
                    {
                        name: [handlers[id(plugin)] for plugin in chain if not isinstance(plugin, EarlyPlugin)]
                        for name, chain in chains.items()
                    },
                ),
            )


def _chain(*scopes_in_order: list[Plugin]) -> list[Plugin]:
    """Choose each plugin's configuration from the last scope that has one. Highest priority first."""
    chosen = {type(plugin): plugin for scope in scopes_in_order for plugin in scope}
    return sorted(chosen.values(), key=lambda plugin: -plugins.PRIORITIES[type(plugin)])


def _run(pipeline: Pipeline, exchange: Exchange, raw_path: str, query: str) -> Reply | Refusal:
    for handler in pipeline.first:
        refusal = handler.access(exchange)
        if refusal is not None:
            return refusal
    for handler in pipeline.then[exchange.consumer]:
        refusal = handler.access(exchange)
        if refusal is not None:
            return refusal
    body = _read_body(pipeline, exchange)
    if isinstance(body, Refusal):
        return body
    return pipeline.upstream.send(
        exchange.method, exchange.path + query, _build_request_headers(exchange, raw_path), body
    )


def _read_body(pipeline: Pipeline, exchange: Exchange) -> bytes | Refusal:
    """Read the body unchanged, because a webhook's signature covers its exact bytes."""
    length = exchange.environ.get("CONTENT_LENGTH")
    if not length and not exchange.header("Transfer-Encoding"):
        return b""
    size = next((h for h in pipeline.then[exchange.consumer] if isinstance(h, RequestSizeLimitingPlugin)), None)
    with DEADLINES.receiving(exchange.connection):
        body: bytes = exchange.environ["wsgi.input"].read(size.limit + 1 if size else -1)
    if size and len(body) > size.limit:
        return size.build_refusal(exchange)
    if length and len(body) != int(length):  # the client disconnected before the end, or was too late
        return Refusal(400, "Bad request")
    return body


def _drain_body(exchange: Exchange) -> None:
    """Read the rest of a refused request, because gunicorn would close the connection otherwise."""
    if exchange.header("Expect"):  # the client waits for 100 Continue, so it sends no body
        return
    if exchange.environ.get("CONTENT_LENGTH") or exchange.header("Transfer-Encoding"):
        with DEADLINES.receiving(exchange.connection):
            while exchange.environ["wsgi.input"].read(2**16):
                pass


def _filter_body(pipeline: Pipeline | None, exchange: Exchange, headers: Headers, body: bytes) -> bytes:
    for handler in pipeline.first if pipeline else ():
        if isinstance(handler, PreFunctionPlugin):
            body = handler.body_filter(exchange, headers, body)
    return body


@functools.lru_cache(maxsize=1024)
def _header_name(key: str) -> str:
    return key[5:].replace("_", "-").title()


def _build_request_headers(exchange: Exchange, raw_path: str) -> dict[str, str]:
    """Build the headers for the upstream: the client's headers, then Kong's."""
    environ = exchange.environ
    dropped = {name.strip() for name in exchange.header("Connection").lower().split(",")}
    headers = {
        name: value
        for key, value in environ.items()
        if key.startswith("HTTP_")
        and (name := _header_name(key)).lower() not in OWN_REQUEST_HEADERS
        and name.lower() not in dropped
    }
    if environ.get("CONTENT_TYPE"):
        headers["Content-Type"] = environ["CONTENT_TYPE"]
    host, _, _ = exchange.header("Host").partition(":")
    forwarded_for = headers.get("X-Forwarded-For")
    headers["X-Forwarded-For"] = f"{forwarded_for}, {exchange.client}" if forwarded_for else exchange.client
    headers["X-Forwarded-Proto"] = "http"
    headers["X-Forwarded-Host"] = host
    headers["X-Forwarded-Port"] = environ["SERVER_PORT"]
    headers["X-Forwarded-Path"] = raw_path
    headers["X-Real-Ip"] = exchange.client
    headers["X-Kong-Request-Id"] = exchange.request_id
    headers["Via"] = f"{headers['Via']}, {VIA}" if "Via" in headers else VIA
    for name, value in exchange.added.items():
        headers[name.title()] = value
    return headers


def _build_response_headers(pipeline: Pipeline | None, exchange: Exchange, reply: Reply) -> Headers:
    """Build the response headers: no hop-by-hop ones, the length of the body, and the plugins' changes."""
    headers = [header for header in reply.headers if header[0].lower() not in OWN_RESPONSE_HEADERS]
    if exchange.method != "HEAD" and reply.status not in NO_BODY:
        put(headers, "Content-Length", str(len(reply.body)))
    if pipeline is not None:
        for handler in pipeline.first:
            handler.header_filter(exchange, headers)
        for handler in pipeline.then[exchange.consumer]:
            handler.header_filter(exchange, headers)
    headers.append(("X-Kong-Request-Id", exchange.request_id))
    return headers
