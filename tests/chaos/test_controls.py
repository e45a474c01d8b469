"""Negative controls: without journal, confirms of the broker or leases, the judge finds what is lost or undone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import visits
from tests.chaos.nemesis import Act
from tests.chaos.soak import soak
from tests.chaos.stack import ORCHESTRATORS, running_stack
from tests.support.running_stack import native_only

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.deep,
    pytest.mark.negative_control,
    native_only("the acts send signals to processes of this machine"),
]

SECONDS = 18.0
CLIENTS = 32  # so that each act meets a payment between two of its steps
NO_JOURNAL = """
import services.orchestrator.main as main_module
from services.orchestrator.app import Seams, build
from tests.saga.crash.broken_journals import NoBeginWrite
class NoJournal(NoBeginWrite):
    def end(self, *_, **__):
        return True
main_module.build = lambda settings: build(settings, Seams(journal=NoJournal))"""
NO_CONFIRMS = """
from services.chassis.broker import Publisher
def publish(self, exchange, routing_key, body, *, sent=None, timeout=0.0, **properties):
    sent or self.send(exchange, routing_key, body, **properties)
Publisher.publish = publish"""

NO_LEASES = """
from services.orchestrator import app
from services.orchestrator.saga import journal
app.RECOVERY_SECONDS = 0.05
journal._ADOPT = journal._ADOPT.replace("h.lease_until > clock.now", "false")"""


def find_kinds(run_dir: Path, patch: str, *acts: Act) -> set[str]:
    """Return the kinds of the findings of a run."""
    with running_stack(run_dir, patch) as stack:
        stack.clients = CLIENTS
        return {finding.partition(":")[0] for finding in soak(stack, 1, SECONDS, acts).findings}


def test_judge_finds_lost_credits_without_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sagas stop between the charge and the order. Their orchestrator dies, and no other one finds them."""
    monkeypatch.setattr(visits, "GIVING_UP", 1.0)  # a retry of the pay would finish it under the same keys
    acts = [Act("kill behind a lock", name, 1.0, 0.5) for name in ORCHESTRATORS * 2]
    assert "wrong credits" in find_kinds(tmp_path, NO_JOURNAL, *acts)


def test_judge_finds_lost_messages_without_confirms(tmp_path: Path) -> None:
    """The link to RabbitMQ swallows messages, and no orchestrator waits for their confirms."""
    assert "lost hold message" in find_kinds(
        tmp_path, NO_CONFIRMS, Act("silence", "orchestrators to rabbitmq", 3.0, 0.5)
    )


def test_judge_finds_undone_requests_without_leases(tmp_path: Path) -> None:
    """Each orchestrator adopts what the other one is working on. Nothing is lost, but requests fail without a cause."""
    assert "unexplained error" in find_kinds(tmp_path, NO_LEASES)
