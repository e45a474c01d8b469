"""The native gateway: `fakes.kong`, which serves the same rendered file as Kong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StackError
from harness.runtime.compose import ROOT, Service
from harness.runtime.program import Ports, Program, make_state_dir, native_environment

RENDERER = "gateway-config"  # a separate service in containers, because Kong's image has no Python
STATUS = (8100, "/status/ready")  # Kong's status API


@dataclass
class Gateway(Program):
    """`fakes.kong`, whose configuration is rendered at each start."""

    configuration: Path = Path()

    def prepare(self, env: Mapping[str, str]) -> None:
        """Render kong.yml. Raises StackError with the renderer's message."""
        command = [sys.executable, "-m", "services.gateway.render", str(self.configuration)]
        done = subprocess.run(command, env={**os.environ, **env}, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(f"{self.name}: {done.stderr.strip()}")


def plan_gateway(service: Service, renderer: Service, ports: Ports, needs: tuple[str, ...], run_dir: Path) -> Gateway:
    """Return the program for compose.yaml's gateway and the service that renders its configuration."""
    configuration = make_state_dir(run_dir, "gateway") / "kong.yml"
    env = {**native_environment(renderer, ports), **native_environment(service, ports)}
    template = Path(env["KONG_ERROR_TEMPLATE_JSON"]).name
    own = dict(ports[service.name])
    return Gateway(
        name=service.name,
        argv=(sys.executable, "-m", "fakes.kong"),
        env={
            **env,
            "KONG_DECLARATIVE_CONFIG": str(configuration),
            "KONG_ERROR_TEMPLATE_JSON": str(ROOT / "services" / "gateway" / template),
        },
        ports=own,
        probe=(own[STATUS[0]], STATUS[1]),
        needs=needs,
        configuration=configuration,
    )
