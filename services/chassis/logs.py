"""JSON log lines on stdout, one object a line, with the fields of §13. What is secret never reaches a line."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, BinaryIO

import msgspec

from services.chassis import correlation

_encode = msgspec.json.Encoder(enc_hook=str).encode


class JsonFormatter(logging.Formatter):
    """§13's record: timestamp, level, service, correlation_id, message, exception; then the call's own fields."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "correlation_id": getattr(record, "correlation_id", None) or correlation.current(),
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line).decode()


class _Lines(logging.Handler):
    """Each record a line of bytes, written at once."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._stream.write(f"{self.format(record)}\n".encode())
            self._stream.flush()
        except Exception:
            self.handleError(record)


def configure(service: str, level: str) -> None:
    """Send every log line of this process to stdout as JSON."""
    _leave_out_what_no_line_shows()
    handler = _Lines(sys.stdout.buffer)
    handler.setFormatter(JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("urllib3", "stripe", "werkzeug"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # An absent broker is no error of ours, and pika tells of each attempt with a stack trace: broker.py and consumer.py
    # say it in one WARNING.
    logging.getLogger("pika").setLevel(logging.CRITICAL)


def _leave_out_what_no_line_shows() -> None:
    """The optimizations of Python's logging HOWTO: finding the caller costs more than the rest of a line."""
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def mask_phone(phone: str) -> str:
    """The last four digits, so that support can recognise a number and a log reader cannot call it."""
    return f"…{phone[-4:]}"
