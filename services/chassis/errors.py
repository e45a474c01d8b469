"""The one error family.

    TicketRemasterError
    ├── Refused            a definite refusal: nothing happened; carries its code and keeps it across every wire
    ├── Unknown            no answer, a 5xx, a lock timeout: it may have happened; ask again under the same key
    └── ConfigurationError a missing or malformed setting; stops the start with one line

A participant raises `Refused`; the chassis turns it into an envelope or a gRPC status; the caller's client
turns that back into the same `Refused`. Whatever is not a definite refusal arrives as `Unknown`.
"""

from __future__ import annotations

from typing import Any

from services.contracts.errors import ERRORS, ErrorCode, Meaning


class TicketRemasterError(Exception):
    """Base of every error that the services raise on purpose."""


class Refused(TicketRemasterError):
    """A definite refusal: the effect did not happen and, under the same key, never will."""

    def __init__(self, code: ErrorCode | str, message: str | None = None, **details: Any) -> None:
        self.code = ErrorCode(code)
        self.message = message or self.meaning.message
        self.details = details
        super().__init__(f"{self.code}: {self.message}")

    @property
    def meaning(self) -> Meaning:
        """The code's HTTP and gRPC status."""
        return ERRORS[self.code]


class Unknown(TicketRemasterError):
    """No definite answer. The effect may have happened; only its key can tell.

    `retry_after` is in seconds; it becomes the `Retry-After` header of the 503.
    """

    def __init__(self, message: str, *, retry_after: int = 1, **details: Any) -> None:
        self.message = message
        self.retry_after = retry_after
        self.details = details
        super().__init__(message)


class ConfigurationError(TicketRemasterError):
    """A setting is missing or malformed; the message is the one line that the operator needs."""
