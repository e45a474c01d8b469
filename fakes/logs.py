"""JSON log lines of the fake and of its gunicorn."""

import json
import logging
import os
import sys
import time
from typing import Any, TextIO

from gunicorn.glogging import Logger

from fakes.clock import iso

NO_CORRELATION = "-"


class JsonLines(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        return json.dumps(
            {
                "timestamp": iso(time.time()),  # the wall clock, even if the fake's clock was moved
                "level": record.levelname,
                "service": self.service,
                "correlation_id": getattr(record, "correlation_id", NO_CORRELATION),
                "message": message,
            }
        )


class _QuietHandler(logging.StreamHandler[TextIO]):
    """Drops the lines whose reader has gone, without a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not isinstance(sys.exception(), BrokenPipeError):
            super().handleError(record)


def configure(service: str) -> None:
    """Send every logger of this process to stdout as JSON lines, from the level LOG_LEVEL up."""
    handler = _QuietHandler(sys.stdout)
    handler.setFormatter(JsonLines(service))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(os.environ.get("LOG_LEVEL", "INFO").upper())
    for name in ("urllib3", "werkzeug"):
        logging.getLogger(name).setLevel(logging.ERROR)


class GunicornLogger(Logger):  # type: ignore[misc]  # gunicorn is untyped
    """Sends gunicorn's messages to the root logger."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for logger in (self.error_log, self.access_log):
            logger.handlers = []
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)
