"""Prints the trace of one request through gateway, services, broker and journal from the JSON logs.

    python -m harness.report.trace ID [--run-dir DIRECTORY]

ID is the X-Correlation-ID of a response, or its first characters. The lines are in time order, each with the
milliseconds since the first and its participant.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.command_line import run_main
from harness.runtime.run_directory import RunDir

STANDARD = ("timestamp", "level", "service", "correlation_id", "message", "exception")
FIRST = ("api-gateway", "orchestrator-service")
_ID = re.compile(r'"correlation_id": ?"([0-9a-fA-F-]{36})"')
_JOURNAL = re.compile(r"^(adopted )?\w+ [0-9a-f-]{36}(: (begun|pivot \w+|[A-Z]+)$| in epoch)")
_MIN_LENGTH = 6  # characters of an id


@dataclass(frozen=True)
class LogLine:
    """A log line of a request."""

    at: datetime
    service: str
    level: str
    message: str
    fields: str

    @property
    def participant(self) -> str:
        """The service that logged the line, or `journal` or `broker` if the line is about one of them."""
        if self.message.startswith(("→ RabbitMQ", "← RabbitMQ", "wake-up ", "Auto-released")):
            return "broker"
        if _JOURNAL.match(self.message):
            return "journal"
        return self.service.removesuffix("-service").removeprefix("api-")


def find_requests(logs: Iterable[Path], is_wanted: Callable[[str], bool]) -> dict[str, list[LogLine]]:
    """Return the lines of each wanted correlation id in time order."""
    found: dict[str, list[LogLine]] = {}
    for correlation_id, line in _read(logs):
        if is_wanted(correlation_id):
            found.setdefault(correlation_id, []).append(_parse(line))
    return {correlation_id: _sort(lines) for correlation_id, lines in found.items()}


def _read(logs: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for path in logs:
        with path.open(encoding="utf-8", errors="replace") as log:
            for line in log:
                if match := _ID.search(line):
                    yield match[1].lower(), line


def _parse(text: str) -> LogLine:
    line: dict[str, Any] = json.loads(text)
    fields = " ".join(f"{name}={value}" for name, value in line.items() if name not in STANDARD)
    if line.get("exception"):
        fields += f"\n{line['exception']}"
    return LogLine(datetime.fromisoformat(line["timestamp"]), line["service"], line["level"], line["message"], fields)


def _sort(lines: list[LogLine]) -> list[LogLine]:
    """Sort by time. Within a millisecond, a caller's line comes before the lines of the services that it calls."""
    return sorted(lines, key=lambda line: (line.at, line.service not in FIRST))


def format_lines(lines: list[LogLine]) -> list[str]:
    """Return each log line as text, with the milliseconds since the first."""
    start = lines[0].at if lines else None
    return [text for line in lines for text in _format(line, (line.at - start).total_seconds() * 1e3 if start else 0.0)]


def _format(line: LogLine, ms: float) -> Iterator[str]:
    level = "" if line.level == "INFO" else f"{line.level} "
    first, *rest = f"{level}{line.message} {line.fields}".rstrip().split("\n")
    yield f"{ms:9.0f} ms  {line.participant:<13} {first}"
    yield from (f"{'':27}{text}" for text in rest)


def format_heading(correlation_id: str, lines: list[LogLine]) -> str:
    """Return a line with the id, the time, the duration and the participants of a request."""
    participants = ", ".join(dict.fromkeys(line.participant for line in lines))
    span = (lines[-1].at - lines[0].at).total_seconds() * 1000
    return f"{correlation_id} · {lines[0].at:%Y-%m-%d %H:%M:%S} · {len(lines)} lines in {span:.0f} ms · {participants}"


def main(arguments: list[str]) -> int:
    """Print the trace of every request whose id begins with the argument. Returns 1 if there is none."""
    parser = argparse.ArgumentParser(prog="python -m harness.report.trace", description=__doc__)
    parser.add_argument("id", help=f"a correlation id, or at least its first {_MIN_LENGTH} characters")
    parser.add_argument("--run-dir", help="run directory, or a folder of them (default: $TR_RUN_DIR, or .run)")
    options = parser.parse_args(arguments)
    if len(options.id) < _MIN_LENGTH:
        parser.error(f"give at least {_MIN_LENGTH} characters of the id")
    run_dir = RunDir(options.run_dir).path
    logs = sorted([*run_dir.glob("logs/*.log"), *run_dir.glob("*/logs/*.log")])  # the demo has a folder of its own
    found = find_requests(logs, lambda correlation_id: correlation_id.startswith(options.id.lower()))
    for correlation_id, lines in found.items():
        print(format_heading(correlation_id, lines), *format_lines(lines), "", sep="\n")
    if not found:
        print(f"no log in {run_dir} has a correlation id that begins with {options.id}", file=sys.stderr)
    return 0 if found else 1


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
