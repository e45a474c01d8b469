"""The HTTP frame of a service: app factory, bodies, envelopes, errors, health, metrics. The server is in `serve.py`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from flask import Flask, Request, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter

from services.chassis import access, correlation, json_codec
from services.chassis.access import Guard, Revocations
from services.chassis.errors import Refused, Unknown
from services.chassis.settings import ProcessSettings
from services.chassis.worker import Background
from services.contracts.errors import ERRORS, ErrorCode

logger = logging.getLogger(__name__)
T = TypeVar("T")

MAX_BODY_BYTES = 64 * 1024
MAX_PER_PAGE = 100
UNLOGGED = ("/health", "/metrics")
REFUSAL = "ticketremaster.refusal"  # why the server refuses a request, as an exception in its environ (`serve.py`)
PROTECTION = {  # of each response, unless its route sets another value
    "Cache-Control": "no-store",
    "Content-Security-Policy": "; ".join(("default-src 'none'", "frame-ancestors 'none'")),
    "X-Content-Type-Options": "nosniff",
}
REQUESTS = Counter("http_requests_total", "Requests answered", ["method", "route", "status"])
SECONDS = Histogram("http_request_seconds", "Time to answer", ["method", "route"])
_HTTP_CODES = {
    400: ErrorCode.VALIDATION_ERROR,
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.PAYLOAD_TOO_LARGE,
    415: ErrorCode.UNSUPPORTED_MEDIA_TYPE,
}


def create_app(
    settings: ProcessSettings,
    *,
    checks: Mapping[str, Callable[[], bool]],
    revocations: Revocations | None = None,
    facts: Callable[[], Mapping[str, Any]] = dict,
) -> Flask:
    """Create a Flask app with the frame. The caller registers its routes and then calls `finish`.

    `checks` are the readiness checks by name. Liveness is separate, so that a failed dependency restarts no process.
    `/health` also shows `facts`, which do not affect readiness.
    """
    app = _App(settings.service, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.extensions["background"] = []
    app.before_request(_begin_request)
    Guard(settings, revocations).protect(app)
    app.after_request(_end_request)
    _handle_errors(app)
    _add_health(app, settings.service, checks, facts)
    return app


class _App(Flask):
    """Flask without two unused features that cost time in each request: coroutines and routing by host."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        if request is None:
            return super().create_url_adapter(None)
        host, query = request.environ.get("HTTP_HOST", ""), request.environ.get("QUERY_STRING", "")
        return MapAdapter(self.url_map, host, "/", "", "http", request.path, request.method, query)


def finish(app: Flask, *background: Background) -> Flask:
    """Check that each route has a policy, and register the background work. Raises ConfigurationError."""
    access.require_policies(app)
    app.extensions["background"].extend(background)
    return app


# ── request bodies and responses


def body(shape: type[T]) -> T:
    """The request's JSON body as `shape` (a msgspec.Struct).

    Raises Refused UNSUPPORTED_MEDIA_TYPE, INVALID_UUID or VALIDATION_ERROR. The message names the field.
    """
    if request.mimetype != "application/json":
        raise Refused(ErrorCode.UNSUPPORTED_MEDIA_TYPE)
    return decode(request.get_data(cache=True), shape)


def decode(raw: bytes, shape: type[T]) -> T:
    """Decode JSON as `shape`. Raises Refused INVALID_UUID or VALIDATION_ERROR."""
    try:
        decoded = json_codec.decode_as(raw, shape)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_valid(str(error)) from None
    except RecursionError:
        raise _not_valid("it is nested too deeply") from None
    except ArithmeticError:  # an exponent beyond the range of Decimal
        raise _not_valid("a number is out of range") from None
    if b"\\u0000" in raw and json_codec.contains_nul(decoded):  # valid JSON, but a PostgreSQL text cannot contain it
        raise Refused(ErrorCode.VALIDATION_ERROR, "Text may not contain the NUL character.")
    return decoded


def _not_valid(reason: str) -> Refused:
    if reason.startswith("Invalid UUID"):
        return Refused(ErrorCode.INVALID_UUID, f"{reason}: send an id as xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.")
    return Refused(ErrorCode.VALIDATION_ERROR, f"The request is not valid: {reason}.")


def as_id(text: str) -> UUID:
    """A UUID from a path or query. Raises Refused INVALID_UUID."""
    try:
        return UUID(text)
    except ValueError:
        raise Refused(ErrorCode.INVALID_UUID, f"{text[:64]!r} is not a UUID.") from None


def query_id(name: str) -> UUID | None:
    """A UUID from the query string, or None when it is absent. Raises Refused INVALID_UUID."""
    text = request.args.get(name)
    return None if text is None else as_id(text)


def page() -> tuple[int, int]:
    """`page` and `per_page` of the query string, 1 and 20 by default. Raises Refused VALIDATION_ERROR."""
    return _read_number("page", 1, 1_000_000), _read_number("per_page", 20, MAX_PER_PAGE)


def _read_number(name: str, default: int, high: int) -> int:
    text = request.args.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= high):
        raise Refused(ErrorCode.VALIDATION_ERROR, f"{name} is a whole number from 1 to {high}.")
    return int(text)


def ok(data: Any, status: int = 200, headers: Mapping[str, str] | None = None, **others: Any) -> Response:
    """The success envelope with `data` and other top-level fields."""
    return _json({"success": True, "data": data, **others}, status, headers)


def ok_page(rows: list[Any], total: int, page: int, per_page: int) -> Response:
    """A page of a list in the success envelope."""
    return ok(rows, pagination=pagination(total, page, per_page))


def pagination(total: int, page: int, per_page: int) -> dict[str, int]:
    """The `pagination` field of an envelope."""
    return {"page": page, "per_page": per_page, "total": total, "total_pages": -(-total // per_page)}


def _json(content: Any, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json_codec.encode(content), status, headers, content_type="application/json")


# ── errors


def error(
    code: ErrorCode, message: str, details: Mapping[str, Any] | None = None, retry_after: int | None = None
) -> Response:
    """The error envelope. `retry_after` is in seconds and becomes the `Retry-After` header."""
    content: dict[str, Any] = {"success": False, "error_code": code, "message": message}
    content["correlation_id"] = correlation.current()
    if details:
        content["details"] = details
    return _json(content, ERRORS[code].http, {"Retry-After": str(retry_after)} if retry_after else None)


def _handle_errors(app: Flask) -> None:
    app.register_error_handler(Refused, _handle_refused)
    app.register_error_handler(Unknown, _handle_unknown)
    app.register_error_handler(HTTPException, _handle_http)
    app.register_error_handler(Exception, _handle_bug)


def _handle_refused(refusal: Refused) -> Response:
    is_retryable = refusal.meaning.http in (429, 503) or refusal.code is ErrorCode.REQUEST_IN_PROGRESS
    retry_after = int(refusal.details.get("retry_after", 1)) if is_retryable else None
    if refusal.meaning.http >= 500:
        logger.error("%s", refusal)
    return error(refusal.code, refusal.message, refusal.details, retry_after)


def _handle_unknown(unknown: Unknown) -> Response:
    logger.warning("no definite answer: %s", unknown.message)
    return error(ErrorCode.SERVICE_UNAVAILABLE, unknown.message, unknown.details, unknown.retry_after)


def _handle_http(exception: HTTPException) -> Response:
    status = exception.code or 500
    code = _HTTP_CODES.get(status, ErrorCode.VALIDATION_ERROR if status < 500 else ErrorCode.INTERNAL_ERROR)
    response = error(code, ERRORS[code].message)
    if status == 405 and (allowed := exception.get_response().headers.get("Allow")):
        response.headers["Allow"] = allowed
    return response


def _handle_bug(exception: Exception) -> Response:
    logger.error("unhandled: %s", type(exception).__name__, exc_info=exception)
    return error(ErrorCode.INTERNAL_ERROR, "Something went wrong on our side. Try again.")


# ── every request


def _begin_request() -> None:
    g.started = time.perf_counter()
    correlation.adopt(request.headers.get(correlation.HEADER))
    if refusal := request.environ.get(REFUSAL):
        raise refusal


@lru_cache(maxsize=1024)
def _counters(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return REQUESTS.labels(method, route, status), SECONDS.labels(method, route)


def _end_request(response: Response) -> Response:
    headers = response.headers
    headers.add(correlation.HEADER, correlation.current() or "")
    own = {name for name, _ in headers}  # `setdefault` would search all headers for each name
    for name in PROTECTION.keys() - own:
        headers.add(name, PROTECTION[name])
    if request.path.startswith(UNLOGGED):
        return response
    seconds = time.perf_counter() - g.started
    # Without a rule, the client has chosen both, and a label for each choice would grow without limit.
    method, route = (request.method, request.url_rule.rule) if request.url_rule else ("unknown", "unknown")
    count, times = _counters(method, route, response.status_code)
    count.inc()
    times.observe(seconds)
    logger.info("%s %s answered %d in %.1f ms", request.method, request.path, response.status_code, seconds * 1000)
    return response


# ── health and metrics


def _add_health(
    app: Flask, service: str, checks: Mapping[str, Callable[[], bool]], facts: Callable[[], Mapping[str, Any]]
) -> None:
    @app.get("/health")
    @access.public
    def health() -> Response:
        return _health(service, {name: check() for name, check in checks.items()}, facts())

    @app.get("/health/live")
    @access.public
    def live() -> Response:
        return _health(service, {}, {})

    @app.get("/metrics")
    @access.public
    def metrics() -> Response:
        return Response(generate_latest(), content_type=CONTENT_TYPE_LATEST)


def _health(service: str, results: Mapping[str, bool], facts: Mapping[str, Any]) -> Response:
    is_ready = all(results.values())
    states = {name: "ok" if passed else "unavailable" for name, passed in results.items()}
    status = {"status": "ok" if is_ready else "unavailable", "service": service}
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return _json({**status, "timestamp": moment, "checks": states, **facts}, 200 if is_ready else 503)
