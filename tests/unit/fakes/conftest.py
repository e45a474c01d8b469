"""Fixtures of the tests of the fakes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_servers import running
from tests.support.fakes_control import Fake
from tests.unit.fakes import smu_client, stripe_client
from tests.unit.fakes.kong_gateway import KongClient, render_config, upstream_server
from tests.unit.fakes.smu_client import Smu


@pytest.fixture(scope="module")
def smu_server() -> Iterator[Fake]:
    with running("fakes.smu", SMU_API_KEY=smu_client.KEY) as server:
        yield server


@pytest.fixture
def smu(smu_server: Fake) -> Smu:
    smu_server.control("reset")
    return Smu(smu_server)


@pytest.fixture(scope="module")
def stripe_server() -> Iterator[Fake]:
    with running("fakes.stripe", STRIPE_SECRET_KEY=stripe_client.KEY, STRIPE_WEBHOOK_URL="") as server:
        yield server


@pytest.fixture
def intents(stripe_server: Fake) -> Any:
    """The SDK's service for PaymentIntents."""
    stripe_server.control("reset")
    return stripe_client.client(stripe_server).v1.payment_intents


@pytest.fixture
def upstream() -> Iterator[Any]:
    with upstream_server() as server:
        yield server


@pytest.fixture
def config(upstream: Any) -> dict[str, Any]:
    return render_config(upstream)


@pytest.fixture
def gateway(config: dict[str, Any], tmp_path: Path) -> KongClient:
    return KongClient(config, tmp_path)
