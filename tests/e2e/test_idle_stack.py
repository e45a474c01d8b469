"""Memory of the whole stack without traffic."""

from __future__ import annotations

import psutil
import pytest

from harness.runtime.process import find_family
from tests.support.system import TestSystem

pytestmark = pytest.mark.e2e

ONE_GIB = 1024**3


def list_processes(system: TestSystem) -> list[psutil.Process]:
    """List the processes of the stack, with broker, database and their children."""
    records = [system.stack.run_dir.read_record(name) for name in system.stack.names]
    leaders = [record.identity.find() for record in records]
    members = {member.pid: member for leader in leaders if leader for member in find_family(leader)}
    return list(members.values())


def test_the_idle_stack_fits_into_one_gib(system: TestSystem) -> None:
    assert {system.stack.state(name) for name in system.stack.names} == {"running"}
    system.wait_until("every service is healthy", system.is_healthy)
    proportional = {p.pid: p.memory_full_info().pss for p in list_processes(system)}
    assert len(proportional) > len(system.stack.names)
    assert sum(proportional.values()) < ONE_GIB, {p.name(): proportional[p.pid] >> 20 for p in list_processes(system)}
