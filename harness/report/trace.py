"""One request's way through gateway, services, broker and journal, out of the JSON logs.

    python -m harness.report.trace ID [--run-dir DIRECTORY]

ID is the X-Correlation-ID of an answer, or its first characters.

Lines come in the order of time, a column a participant, with the milliseconds since the first.
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

from harness.runtime.run_directory import RunDir

STANDARD = ("timestamp", "level", "service", "correlation_id", "message", "exception")
FIRST = ("api-gateway", "orchestrator-service")
_ID = re.compile(r'"correlation_id": ?"([0-9a-fA-F-]{36})"')
_JOURNAL = re.compile(r"^(adopted )?\w+ [0-9a-f-]{36}(: (begun|pivot \w+|[A-Z]+)$| in epoch)")
_SHORTEST = 6  # characters of an id that are enough to look for


@dataclass(frozen=True)
class Line:
    """A log line of a request."""

    at: datetime
    service: str
    level: str
    message: str
    more: str

    @property
    def lane(self) -> str:
        """Who speaks: a service, or the journal or broker that it speaks for."""
        if self.message.startswith(("→ RabbitMQ", "← RabbitMQ", "wake-up ", "Auto-released")):
            return "broker"
        if _JOURNAL.match(self.message):
            return "journal"
        return self.service.removesuffix("-service").removeprefix("api-")


def find(logs: Iterable[Path], wanted: Callable[[str], bool]) -> dict[str, list[Line]]:
    """The lines of each id that is wanted, in the order of time."""
    found: dict[str, list[Line]] = {}
    for correlation_id, line in _all(logs):
        if wanted(correlation_id):
            found.setdefault(correlation_id, []).append(_parsed(line))
    return {correlation_id: _in_order(lines) for correlation_id, lines in found.items()}


def _all(logs: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for path in logs:
        with path.open(encoding="utf-8", errors="replace") as log:
            for line in log:
                if match := _ID.search(line):
                    yield match[1].lower(), line


def _parsed(text: str) -> Line:
    line: dict[str, Any] = json.loads(text)
    more = " ".join(f"{name}={value}" for name, value in line.items() if name not in STANDARD)
    if line.get("exception"):
        more += f"\n{line['exception']}"
    return Line(datetime.fromisoformat(line["timestamp"]), line["service"], line["level"], line["message"], more)


def _in_order(lines: list[Line]) -> list[Line]:
    """By time; within a millisecond, whoever asks speaks before whoever is asked."""
    return sorted(lines, key=lambda line: (line.at, line.service not in FIRST))


def told(lines: list[Line]) -> list[str]:
    """A line of text for each."""
    began = lines[0].at if lines else None
    return [text for line in lines for text in _text(line, (line.at - began).total_seconds() * 1000 if began else 0.0)]


def _text(line: Line, ms: float) -> Iterator[str]:
    mark = "" if line.level == "INFO" else f"{line.level} "
    first, *rest = f"{mark}{line.message} {line.more}".rstrip().split("\n")
    yield f"{ms:9.0f} ms  {line.lane:<13} {first}"
    yield from (f"{'':27}{text}" for text in rest)


def heading(correlation_id: str, lines: list[Line]) -> str:
    """Whose way it is and how long it was."""
    lanes = ", ".join(dict.fromkeys(line.lane for line in lines))
    span = (lines[-1].at - lines[0].at).total_seconds() * 1000
    return f"{correlation_id} · {lines[0].at:%Y-%m-%d %H:%M:%S} · {len(lines)} lines in {span:.0f} ms · {lanes}"


def main(arguments: list[str]) -> int:
    """Print the way of every request whose id begins as given; 1 when there is none."""
    parser = argparse.ArgumentParser(prog="python -m harness.report.trace", description=__doc__)
    parser.add_argument("id", help="a correlation id, or how it begins")
    parser.add_argument("--run-dir", help="where stacks are, there or beneath (default: $TR_RUN_DIR, else .run)")
    options = parser.parse_args(arguments)
    if len(options.id) < _SHORTEST:
        parser.error(f"at least {_SHORTEST} characters of the id")
    where = RunDir(options.run_dir).path
    logs = sorted([*where.glob("logs/*.log"), *where.glob("*/logs/*.log")])  # the demo's are beneath
    found = find(logs, lambda known: known.startswith(options.id.lower()))
    for correlation_id, lines in found.items():
        print(heading(correlation_id, lines), *told(lines), "", sep="\n")
    if not found:
        print(f"no log in {where} has a correlation id that begins with {options.id}", file=sys.stderr)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
