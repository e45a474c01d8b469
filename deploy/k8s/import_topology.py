"""`import_topology.py URL NODES FILE`: imports the definitions in FILE once NODES nodes run. Standard library only.

While fewer nodes run, it prints one line and exits with status 1, so that Kubernetes starts it again.
A second import changes nothing.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen


def call(url: str, path: str, body: bytes | None = None) -> Any:
    """Call the management API and return its answer. Raises OSError when there is no answer, or an error."""
    credentials = f"{os.environ['RABBITMQ_USER']}:{os.environ['RABBITMQ_PASS']}".encode()
    headers = {"Authorization": f"Basic {base64.b64encode(credentials).decode()}", "Content-Type": "application/json"}
    with urlopen(Request(url + path, body, headers), timeout=10) as answer:  # noqa: S310 - http within the cluster
        return json.loads(answer.read() or "null")


def main(url: str, nodes: int, file: Path) -> int:
    """Import the definitions, or print why that is not possible."""
    try:
        running = sum(node["running"] for node in call(url, "/api/nodes"))
        if running < nodes:
            print(f"{running} of {nodes} nodes run", file=sys.stderr)
            return 1
        call(url, "/api/definitions", file.read_bytes())
    except OSError as problem:
        print(f"{url}: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
