"""The native stack: embedded PostgreSQL, the installed RabbitMQ and one process per service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.runtime import packages, process_plan
from harness.runtime.compose import Service
from harness.runtime.program import Program
from harness.runtime.run_directory import RunDir
from harness.runtime.stack import Stack


class NativeStack(Stack):
    """All processes of one run directory, started directly on this machine."""

    kind = "native"

    @classmethod
    def assign_ports(cls, services: Mapping[str, Service], run_dir: RunDir) -> dict[str, dict[int, int]]:
        """Claim a free port of this machine for each port of each service."""
        return process_plan.assign_ports(services)

    @classmethod
    def install_missing(cls, services: Mapping[str, Service], only: Iterable[str] | None) -> None:
        """Install RabbitMQ if it is needed. apt takes long enough for another stack to take ports chosen before."""
        if process_plan.needs_broker(services, services if only is None else only):
            packages.ensure_broker()

    def _plan(self, values: Mapping[str, str], run_dir: Path) -> dict[str, Program]:
        return process_plan.plan_programs(self._services, self._ports, values, run_dir)
