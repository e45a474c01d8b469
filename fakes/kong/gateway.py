"""The WSGI application: route, plugins, upstream, plugins again, one log line."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fakes.kong import plugins
from fakes.kong.declarative import Config, Consumer, Cors, Jwt, Plugin, Route, scopes
from fakes.kong.exchange import Exchange, Headers, put
from fakes.kong.plugins import Handler, RequestSizeLimitingPlugin
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
OWN_RESPONSE_HEADERS = HOP_BY_HOP | {"date", "server"}  # the web server writes these two itself
NO_BODY = frozenset((204, 304))
STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


@dataclass(frozen=True)
class Lane:
    """A route with its plugins in order: until the consumer is known, and from then on by consumer."""

    upstream: Upstream
    first: list[Handler]
    then: dict[str | None, list[Handler]]


class Gateway:
    """Serves one declarative configuration."""

    def __init__(self, config: Config, templates: Templates, log: Log) -> None:
        self._templates = templates
        self._log = log
        self._router = Router(_lanes(config))

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """One request; always answers."""
        began = time.perf_counter()
        raw, _, query = environ["RAW_URI"].partition("?")
        exchange = Exchange(environ, environ["REQUEST_METHOD"], normalize(raw))
        lane = self._router.match(exchange.method, exchange.path) if raw.startswith("/") else None
        if lane is None:
            outcome: Reply | Refusal = Refusal(404, "no Route matched with those values")
        else:
            outcome = _serve(lane, exchange, raw, f"?{query}" if "?" in environ["RAW_URI"] else "")
        reply = self._write(outcome, exchange) if isinstance(outcome, Refusal) else outcome
        headers = _answer(lane, exchange, reply)
        start_response(STATUS_LINES.get(reply.status) or f"{reply.status} {reply.reason}", headers)
        self._record(exchange, lane, outcome, time.perf_counter() - began)
        return [reply.body]

    def _write(self, refusal: Refusal, exchange: Exchange) -> Reply:
        _discard(exchange)
        content_type, body = refusal.content_type, refusal.body
        if body is None:
            accept = exchange.header("Accept")
            if not accept and refusal.status >= 502:  # Kong's error page, unlike its plugins, then asks what came in
                accept = exchange.environ.get("CONTENT_TYPE", "")
            content_type, body = self._templates.fill(accept, refusal.message, exchange.request_id)
        headers = [*refusal.headers, ("Content-Type", content_type)] if content_type else [*refusal.headers]
        return Reply(refusal.status, "", headers, body)

    def _record(self, exchange: Exchange, lane: Lane | None, outcome: Reply | Refusal, seconds: float) -> None:
        """One line a request: no query, no header, so no token."""
        text = f"{exchange.method} {exchange.path} {outcome.status} in {seconds * 1000:.1f} ms"
        level = "INFO"
        if isinstance(outcome, Refusal) and outcome.status >= 400:
            level = "ERROR" if outcome.status >= 500 else "WARNING"
            text += f", refused: {exchange.note or outcome.message}"
        elif isinstance(outcome, Reply) and lane is not None:
            text += f" → {lane.upstream.name}"
        self._log(level, exchange.correlation_id or exchange.request_id, text)


def _lanes(config: Config) -> Iterable[tuple[Route, Lane]]:
    # One handler a configuration, wherever it applies: a global rate limit counts across routes.
    handlers = {id(p): plugins.build(p, config.consumers) for _, scope in scopes(config) for p in scope}
    everyone: list[Consumer | None] = [None, *config.consumers]
    for service in config.services:
        upstream = Upstream(service)
        for route in service.routes:
            chains = {
                consumer.username if consumer else None: _chain(
                    config.plugins, service.plugins, route.plugins, consumer.plugins if consumer else []
                )
                for consumer in everyone
            }
            yield (
                route,
                Lane(
                    upstream,
                    [handlers[id(plugin)] for plugin in chains[None] if isinstance(plugin, Cors | Jwt)],
                    {
                        name: [handlers[id(plugin)] for plugin in chain if not isinstance(plugin, Cors | Jwt)]
                        for name, chain in chains.items()
                    },
                ),
            )


def _chain(*scopes_in_order: list[Plugin]) -> list[Plugin]:
    """Of each plugin the configuration of the last scope that has one, highest priority first."""
    chosen = {type(plugin): plugin for scope in scopes_in_order for plugin in scope}
    return sorted(chosen.values(), key=lambda plugin: -plugins.PRIORITIES[type(plugin)])


def _serve(lane: Lane, exchange: Exchange, raw_path: str, query: str) -> Reply | Refusal:
    for handler in lane.first:
        refusal = handler.access(exchange)
        if refusal is not None:
            return refusal
    for handler in lane.then[exchange.consumer]:
        refusal = handler.access(exchange)
        if refusal is not None:
            return refusal
    body = _body(lane, exchange)
    if isinstance(body, Refusal):
        return body
    return lane.upstream.send(exchange.method, exchange.path + query, _forward(exchange, raw_path), body)


def _body(lane: Lane, exchange: Exchange) -> bytes | Refusal:
    """The request's body, byte for byte: a webhook's signature is over exactly these."""
    length = exchange.environ.get("CONTENT_LENGTH")
    if not length and not exchange.header("Transfer-Encoding"):
        return b""
    size = next((h for h in lane.then[exchange.consumer] if isinstance(h, RequestSizeLimitingPlugin)), None)
    body: bytes = exchange.environ["wsgi.input"].read(size.limit + 1 if size else -1)
    if size and len(body) > size.limit:
        return size.refusal(exchange)
    if length and len(body) != int(length):  # the client went away half-way: half a request is none
        return Refusal(400, "Bad request")
    return body


def _discard(exchange: Exchange) -> None:
    """Read what a refused client sends all the same, or its kept connection would be cut."""
    if exchange.header("Expect"):  # it was never told to go on
        return
    if exchange.environ.get("CONTENT_LENGTH") or exchange.header("Transfer-Encoding"):
        while exchange.environ["wsgi.input"].read(2**16):
            pass


@functools.lru_cache(maxsize=1024)
def _header_name(key: str) -> str:
    return key[5:].replace("_", "-").title()


def _forward(exchange: Exchange, raw_path: str) -> dict[str, str]:
    """The request's headers for the upstream: the client's own, then what Kong says of it."""
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


def _answer(lane: Lane | None, exchange: Exchange, reply: Reply) -> Headers:
    """The response's headers: hop-by-hop ones go, the length is the body's, then every plugin has its say."""
    headers = [header for header in reply.headers if header[0].lower() not in OWN_RESPONSE_HEADERS]
    if exchange.method != "HEAD" and reply.status not in NO_BODY:
        put(headers, "Content-Length", str(len(reply.body)))
    if lane is not None:
        for handler in lane.first:
            handler.answer(exchange, headers)
        for handler in lane.then[exchange.consumer]:
            handler.answer(exchange, headers)
    headers.append(("X-Kong-Request-Id", exchange.request_id))
    return headers
