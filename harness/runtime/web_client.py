"""The native web client: `clients.serve`, whose libraries npm installs before its first start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.runtime import node_packages
from harness.runtime.compose import ROOT, Service
from harness.runtime.program import Ports, Program, plan_web

NAME = "web-client"
FOLDER = ROOT / "clients"


@dataclass
class WebClient(Program):
    """`clients.serve` with its libraries."""

    def prepare(self, env: Mapping[str, str]) -> None:
        """Install the libraries if they are missing or their lock has changed. Raises StackError."""
        node_packages.install(FOLDER)


def plan_web_client(service: Service, ports: Ports, needs: tuple[str, ...]) -> WebClient:
    """Return the program for the service `web-client` of compose.yaml."""
    return WebClient(**vars(plan_web(service, ports, needs)))
