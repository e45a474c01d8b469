"""JSON log lines of the fake and of its gunicorn."""

import json
import logging
import os
import sys
import time
from typing import Any

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


def configure(service: str) -> None:
    """Send every logger of this process to stdout as JSON lines, from the level LOG_LEVEL up."""
    handler = logging.StreamHandler(sys.stdout)
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
