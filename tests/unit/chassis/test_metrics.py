"""The metrics of requests: a client cannot make them grow without limit."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from services.chassis import web
from tests.support.service_settings import process_settings

pytestmark = pytest.mark.unit


def test_labels_are_not_chosen_by_clients() -> None:
    app = web.create_app(process_settings("order-service"), checks={})
    client = web.finish(app).test_client()
    for number in range(3):
        assert client.open(f"/orders/{number}", method=f"VERB{number}").status_code == 404
    labels = [sample.labels for metric in REGISTRY.collect() for sample in metric.samples]
    methods = {each["method"] for each in labels if "route" in each}
    assert "unknown" in methods
    assert not {method for method in methods if method.startswith("VERB")}
