"""JSON log lines on stdout, one object per line, with the fields of §13. No line contains a secret."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, BinaryIO

import msgspec

from services.chassis import correlation

_encode = msgspec.json.Encoder(enc_hook=str).encode


class JsonFormatter(logging.Formatter):
    """Formats the record of §13: timestamp, level, service, correlation_id, message, the call's fields, exception."""

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


class _LineHandler(logging.Handler):
    """Writes and flushes one line of bytes per record."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._stream.write(f"{self.format(record)}\n".encode())
            self._stream.flush()
        except BrokenPipeError:
            pass  # the reader of stdout has gone, and requests do not depend on it
        except Exception:
            self.handleError(record)


def configure(service: str, level: str) -> None:
    """Send every log line of this process to stdout as JSON."""
    _skip_unused_fields()
    handler = _LineHandler(sys.stdout.buffer)
    handler.setFormatter(JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("urllib3", "stripe", "werkzeug"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # pika logs a stack trace for each failed connection attempt. Publisher and Consumer log one WARNING instead.
    logging.getLogger("pika").setLevel(logging.CRITICAL)


def _skip_unused_fields() -> None:
    """Turn off the fields that no line shows. To find the caller costs more than the rest of a line."""
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def mask_phone(phone: str) -> str:
    """The last four digits. Support can recognise the number, but a log reader cannot call it."""
    return f"…{phone[-4:]}"
