"""The correlation id of the current request: one UUID that HTTP, gRPC and AMQP carry along (§13)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from uuid import UUID, uuid4

HEADER = "X-Correlation-ID"
METADATA = "correlation-id"

_current: ContextVar[str | None] = ContextVar("correlation_id", default=None)


def current() -> str | None:
    """The current correlation id, or None outside a request."""
    return _current.get()


def adopt(candidate: str | None) -> str:
    """Set and return the current id: the caller's, or a new one if the caller's is not a UUID."""
    try:
        accepted = str(UUID(candidate)) if candidate else str(uuid4())
    except ValueError:
        accepted = str(uuid4())
    _current.set(accepted)
    return accepted


@contextmanager
def scope(candidate: str | None = None) -> Iterator[str]:
    """Set a correlation id for a block, and restore the previous one after it."""
    before = _current.get()
    try:
        yield adopt(candidate)
    finally:
        _current.set(before)
