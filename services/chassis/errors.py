"""The exceptions of the services.

    TicketRemasterError
    ├── Refused            a definite refusal with an error code: the effect did not happen
    ├── Unknown            no definite answer: the effect may have happened, so retry with the same key
    │   ├── NoAnswer       no connection, a timeout or an immediate 503: the neighbour cannot work
    │   └── NotSent        nothing was sent, so the effect did not happen
    │       ├── Unreachable    also a NoAnswer: no connection was made
    │       └── Away           the neighbour is known to be away, or too many threads wait for it
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

    `retry_after` is in seconds. The 503 response has it in its `Retry-After` header. `is_away` means that another try
    is useless, because the neighbour is known to be away.
    """

    is_away = False

    def __init__(self, message: str, *, retry_after: int = 1, **details: Any) -> None:
        self.message = message
        self.retry_after = retry_after
        self.details = details
        super().__init__(message)


class NoAnswer(Unknown):
    """The neighbour did not answer, or it answered at once that it cannot work. It counts for the circuit breaker."""

    is_noted = False  # True once it has been counted, so that it does not count for an outer call too


class NotSent(Unknown):
    """Nothing was sent, so the effect did not happen."""


class Unreachable(NoAnswer, NotSent):
    """No connection was made."""


class Away(NotSent):
    """The call was not made: the neighbour is known to be away, or too many threads wait for it."""

    is_away = True


class ConfigurationError(TicketRemasterError):
    """A setting is missing or malformed. The message is one line with the fix for the operator."""
