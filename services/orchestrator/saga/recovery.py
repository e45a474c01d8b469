"""Recovery: any orchestrator process ends the sagas that another one left (rules R6 and R7).

- heartbeat renews the lease of this process.
- recovery adopts sagas that are overdue or have no live owner. It settles or undoes them, or parks them.
- completion confirms transfers that both parties have verified but whose confirm never began.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import UUID

from prometheus_client import Counter

from services.chassis import correlation
from services.chassis.errors import Refused, Unknown
from services.chassis.worker import Worker
from services.contracts.enums import TransferStatus
from services.orchestrator.participants import Participants
from services.orchestrator.saga.flows import SAGAS, TRANSFER_CONFIRM
from services.orchestrator.saga.journal import LEASE_SECONDS, Entry, Journal, Status
from services.orchestrator.saga.runner import Runner

logger = logging.getLogger(__name__)

BEAT_SECONDS = LEASE_SECONDS / 4
TICK_SECONDS = 0.5
RETRY_SECONDS = 1.0  # between two attempts at a saga that recovery could not end
BATCH = 16
COMPLETION_SECONDS = 2.0
PARKED = Counter("sagas_parked_total", "Sagas that wait for an operator", ["flow"])
ADOPTED = Counter("sagas_adopted_total", "Sagas adopted from another process or attempt", ["flow"])


class Heartbeat:
    """Renews the lease of this process. A clean stop ends the lease, so that its sagas are adopted at once."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._worker = Worker("heartbeat", journal.beat, BEAT_SECONDS)

    def start(self) -> None:
        """Start to renew the lease."""
        self._worker.start()

    def stop(self) -> None:
        """Stop renewing the lease and end it."""
        self._worker.stop()
        with suppress(Unknown):
            self._journal.resign()


class Recovery:
    """Adopts and resolves sagas. Several processes can run it at once, because SKIP LOCKED gives each its own rows."""

    def __init__(self, journal: Journal, runner: Runner) -> None:
        self._journal = journal
        self._runner = runner
        self._pool = ThreadPoolExecutor(BATCH // 2, "recovery")

    def tick(self) -> bool:
        """Adopt one batch and resolve it. True when more sagas may wait."""
        adopted = self._journal.adopt(BATCH)
        for _ in self._pool.map(self._recover, adopted):
            pass
        return len(adopted) == BATCH

    def _recover(self, entry: Entry) -> None:
        with correlation.scope(str(entry.correlation_id or "")):
            ADOPTED.labels(entry.flow).inc()
            logger.warning("adopted %s %s in epoch %d", entry.flow, entry.subject, entry.epoch)
            with suppress(Unknown):  # without the journal the saga stays as it is, for a later tick
                if self._resolve(entry):
                    return
                if entry.is_overdue:
                    self._park(entry)
            self._journal.leave(entry.saga_id, RETRY_SECONDS)

    def _resolve(self, entry: Entry) -> bool:
        try:
            return self._runner.resolve(SAGAS[entry.flow], entry)
        except Unknown:
            raise
        except Exception:  # a bug too must end in PARKED, not in endless silent retries
            logger.exception("%s %s cannot be resolved", entry.flow, entry.subject)
            return False

    def _park(self, entry: Entry) -> None:
        details = {"subject": str(entry.subject), **self._runner.describe_for_operator(SAGAS[entry.flow], entry)}
        message = "The saga is parked. An operator must resolve it."
        result = {"code": "SERVICE_UNAVAILABLE", "message": message, "details": details}
        if self._journal.end(entry, Status.PARKED, result):
            PARKED.labels(entry.flow).inc()
            logger.critical(
                "PARKED %s %s: see `python -m services.orchestrator.admin show %s`",
                entry.flow,
                entry.subject,
                entry.saga_id,
            )


class Completion:
    """Confirms verified transfers whose process died between the second code and the transfer_confirm saga."""

    def __init__(self, participants: Participants, runner: Runner) -> None:
        self._orders = participants.orders
        self._runner = runner

    def tick(self) -> None:
        """Run transfer_confirm for each verified transfer, or join the saga that already runs."""
        verified = self._orders.list_transfers(status=TransferStatus.PENDING_OTP, both_verified="true", per_page=50)
        for transfer in verified["data"]:
            self._confirm(transfer["transfer_id"])

    def _confirm(self, transfer_id: str) -> None:
        with suppress(Refused, Unknown):  # the transfer ended otherwise, or the next tick retries
            self._runner.run(TRANSFER_CONFIRM, UUID(transfer_id), {"transfer_id": transfer_id})
