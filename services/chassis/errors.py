"""The exceptions of the services.

    TicketRemasterError
    ├── Refused            a definite refusal with an error code: the effect did not happen
    ├── Unknown            no answer, a 5xx or a lock timeout: the effect may have happened, so retry with the same key
    └── ConfigurationError a missing or malformed setting: the process prints one line and exits

A participant raises `Refused`, and the server turns it into an envelope or a gRPC status. The caller's client raises
the same `Refused` again. Any other failure reaches the caller as `Unknown`.
"""

from __future__ import annotations

from typing import Any

from services.contracts.errors import ERRORS, ErrorCode, Meaning


class TicketRemasterError(Exception):
    """The base class of the exceptions that the services raise on purpose."""


class Refused(TicketRemasterError):
    """A definite refusal: the effect did not happen, and never happens under the same key."""

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
    """No definite answer. The effect may have happened, and only a retry with its key shows which.

    `retry_after` is in seconds. The 503 response has it in its `Retry-After` header.
    """

    def __init__(self, message: str, *, retry_after: int = 1, **details: Any) -> None:
        self.message = message
        self.retry_after = retry_after
        self.details = details
        super().__init__(message)


class ConfigurationError(TicketRemasterError):
    """A setting is missing or malformed. The message is one line with the fix for the operator."""
