"""A negative control: without the confirms of the broker, the judge finds the messages that are lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.nemesis import Act
from tests.chaos.soak import soak
from tests.support.running_stack import native_only

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.deep,
    pytest.mark.negative_control,
    native_only("the acts send signals to processes of this machine"),
]

SECONDS = 18.0
NO_CONFIRMS = """
from services.chassis.broker import Publisher
def publish(self, exchange, routing_key, body, *, sent=None, timeout=0.0, **properties):
    sent or self.send(exchange, routing_key, body, **properties)
Publisher.publish = publish"""


def find_kinds(run_dir: Path, patch: str, *acts: Act) -> set[str]:
    """Return the kinds of the findings of a run."""
    return {finding.partition(":")[0] for finding in soak(run_dir, 1, SECONDS, acts, patch).findings}


def test_judge_finds_lost_messages_without_confirms(tmp_path: Path) -> None:
    """The link to RabbitMQ swallows messages, and no orchestrator waits for their confirms."""
    assert "lost hold message" in find_kinds(
        tmp_path, NO_CONFIRMS, Act("silence", "orchestrators to rabbitmq", 3.0, 0.5)
    )
