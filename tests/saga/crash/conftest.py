"""The system that all crash tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.saga.crash.crash_system import CrashTestSystem


@pytest.fixture(scope="package")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashTestSystem]:
    """A running system without a gateway."""
    with CrashTestSystem.up(tmp_path_factory.mktemp("crash")) as running:
        yield running
