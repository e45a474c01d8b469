"""The gRPC frame: allowed callers, correlation ids, logs, and refusals as one typed error detail."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from services.chassis import correlation, json_codec, tokens
from services.chassis.errors import ConfigurationError, Refused, Unknown
from services.chassis.keys import PublicKeys
from services.contracts.errors import ErrorCode
from services.contracts.pb import inventory_pb2

logger = logging.getLogger(__name__)
Reply = TypeVar("Reply")

SERVICE = "inventory-service"
STOP_SECONDS = 5
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]
MIN_PING_MS = 1000  # the clients ping every two seconds
CONNECTION_SECONDS = 300  # the age at which a client has to reconnect, so that it finds new replicas


def rpc(*callers: str) -> Callable[[Callable[..., Reply]], Callable[..., Reply]]:
    """Make a servicer's method a gRPC call for the named services only.

    The method takes the request and returns the reply. The decorator turns Refused and Unknown into gRPC statuses.
    It reads `service_keys` of the servicer.
    """

    def decorate(method: Callable[..., Reply]) -> Callable[..., Reply]:
        @functools.wraps(method)
        def handler(servicer: Any, request: Any, context: grpc.ServicerContext) -> Reply:
            metadata = dict(context.invocation_metadata())
            with correlation.scope(str(metadata.get(correlation.METADATA) or "")):
                return _serve_call(servicer, method, request, context, metadata, callers)

        handler.callers = callers  # type: ignore[attr-defined]
        return handler

    return decorate


def _serve_call(
    servicer: Any,
    method: Callable[..., Reply],
    request: Any,
    context: Any,
    metadata: dict[str, Any],
    callers: tuple[str, ...],
) -> Reply:
    started = time.perf_counter()
    try:
        _check_caller(servicer.service_keys, metadata, callers)
        reply = method(servicer, request)
    except Refused as refusal:
        _log(method, refusal.code, started)
        context.abort_with_status(_encode_refusal(refusal))
    except Unknown as unknown:
        logger.warning("gRPC %s has no definite answer: %s", method.__name__, unknown.message)
        context.abort_with_status(_encode_unknown(unknown))
    except Exception:
        logger.exception("gRPC %s failed", method.__name__)
        context.abort(grpc.StatusCode.INTERNAL, "internal error")
    _log(method, "OK", started)
    return reply


def _log(method: Any, outcome: str, started: float) -> None:
    logger.info("gRPC %s %s in %.1f ms", method.__name__, outcome, (time.perf_counter() - started) * 1000)


def _check_caller(keys: PublicKeys, metadata: dict[str, Any], callers: tuple[str, ...]) -> None:
    header = str(metadata.get("authorization") or "")
    name = tokens.verify_caller(keys, SERVICE, tokens.parse_bearer(header))
    if name not in callers:
        raise Refused(ErrorCode.FORBIDDEN, f"{name} is not allowed to call this endpoint.")


def _encode_refusal(refusal: Refused) -> Any:
    detail = AnyMessage()
    details = json_codec.encode(refusal.details).decode()
    detail.Pack(inventory_pb2.Refusal(code=refusal.code, message=refusal.message, details_json=details))
    code: int = grpc.StatusCode[refusal.meaning.grpc].value[0]
    return rpc_status.to_status(status_pb2.Status(code=code, message=refusal.code, details=[detail]))


def _encode_unknown(unknown: Unknown) -> Any:
    """A status with details but without a refusal. The details show that the server itself answered."""
    return rpc_status.to_status(status_pb2.Status(code=_UNAVAILABLE, message=unknown.message))


class GrpcServer:
    """A gRPC server with health checks and reflection. Start it after the fork."""

    def __init__(self, address: str, add: Callable[[grpc.Server], None], service: Any, threads: int) -> None:
        options = [
            ("grpc.so_reuseport", 0),
            ("grpc.max_connection_age_ms", CONNECTION_SECONDS * 1000),
            # The clients ping during a call. Without this, the server would close their connections for it.
            ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_MS),
        ]
        self._server = grpc.server(ThreadPoolExecutor(threads, "grpc"), options=options)
        self.health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        add(self._server)
        names = (service.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._service_name = service.full_name
        self._address = address
        self.port = self._server.add_insecure_port(address)
        if self.port == 0:
            raise ConfigurationError(f"cannot listen on {address}: the port is taken")

    def start(self) -> None:
        """Start to serve calls."""
        self._server.start()
        self.health.set(self._service_name, health_pb2.HealthCheckResponse.SERVING)
        logger.info("gRPC listens on %s", self._address)

    def stop(self) -> None:
        """Refuse new calls and wait up to 5 seconds for the current ones."""
        self.health.enter_graceful_shutdown()
        self._server.stop(STOP_SECONDS).wait()


def require_callers(servicer: Any, service: Any) -> None:
    """Raise ConfigurationError if a method of the service names no callers."""
    unguarded = [m.name for m in service.methods if not hasattr(getattr(type(servicer), m.name, None), "callers")]
    if unguarded:
        raise ConfigurationError(f"gRPC methods without callers: {', '.join(unguarded)}")
