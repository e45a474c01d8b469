"""The correlation id of the request in hand: one UUID, followed through HTTP, gRPC and AMQP (§13)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from uuid import UUID, uuid4

HEADER = "X-Correlation-ID"
METADATA = "correlation-id"

_current: ContextVar[str | None] = ContextVar("correlation_id", default=None)


def current() -> str | None:
    """The correlation id in force, or None outside any request."""
    return _current.get()


def adopt(candidate: str | None) -> str:
    """Take over a caller's id; whatever is not a UUID is replaced by a fresh one. Returns the id in force."""
    try:
        accepted = str(UUID(candidate)) if candidate else str(uuid4())
    except ValueError:
        accepted = str(uuid4())
    _current.set(accepted)
    return accepted


@contextmanager
def scope(candidate: str | None = None) -> Iterator[str]:
    """Work under one correlation id, then restore the one before it."""
    before = _current.get()
    try:
        yield adopt(candidate)
    finally:
        _current.set(before)
