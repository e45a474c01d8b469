"""What the whole stack costs while nobody asks anything of it (issue 2)."""

from __future__ import annotations

import psutil
import pytest

from harness.runtime.process import find_family
from tests.support.system import TestSystem

pytestmark = pytest.mark.e2e

ONE_GIB = 1024**3


def processes(system: TestSystem) -> list[psutil.Process]:
    """Everything that the stack consists of, broker and database with their children."""
    records = [system.stack.run_dir.read_record(name) for name in system.stack.names]
    leaders = [record.identity.find() for record in records]
    whole = {member.pid: member for leader in leaders if leader for member in find_family(leader)}
    return list(whole.values())


def test_the_idle_stack_with_broker_and_database_fits_into_one_gib(system: TestSystem) -> None:
    assert {system.stack.state(name) for name in system.stack.names} == {"running"}
    system.wait_until("it is at rest", system.is_healthy)
    proportional = {p.pid: p.memory_full_info().pss for p in processes(system)}
    assert len(proportional) > len(system.stack.names)
    assert sum(proportional.values()) < ONE_GIB, {p.name(): proportional[p.pid] >> 20 for p in processes(system)}
