"""Recovery: any orchestrator brings to an end what another one left (rules R6 and R7).

heartbeat   renews this process's lease
recovery    adopts what is overdue or ownerless, settles or undoes it; past its time it is PARKED
completion  starts the swap of transfers that both parties have verified and nobody took up
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
BATCH = 16
COMPLETION_SECONDS = 2.0
PARKED = Counter("sagas_parked_total", "Sagas that wait for a person", ["flow"])
ADOPTED = Counter("sagas_adopted_total", "Sagas taken over from another process or attempt", ["flow"])


class Heartbeat:
    """Renews the lease of this process; gives it up on a clean stop, so that nobody waits for it to run out."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._worker = Worker("heartbeat", journal.beat, BEAT_SECONDS)

    def start(self) -> None:
        """Begin to beat."""
        self._worker.start()

    def stop(self) -> None:
        """Stop beating and resign."""
        self._worker.stop()
        with suppress(Unknown):
            self._journal.resign()


class Recovery:
    """Adopts and resolves; several processes may run it at once, SKIP LOCKED keeps them apart."""

    def __init__(self, journal: Journal, runner: Runner) -> None:
        self._journal = journal
        self._runner = runner
        self._pool = ThreadPoolExecutor(BATCH // 2, "recovery")

    def tick(self) -> bool:
        """Adopt one batch and work on all of it. True when there may be more."""
        adopted = self._journal.adopt(BATCH)
        for _ in self._pool.map(self._resolve, adopted):
            pass
        return len(adopted) == BATCH

    def _resolve(self, entry: Entry) -> None:
        with correlation.scope(str(entry.correlation_id or "")):
            ADOPTED.labels(entry.flow).inc()
            logger.warning("adopted %s %s in epoch %d", entry.flow, entry.subject, entry.epoch)
            with suppress(Unknown):  # the journal itself is away: the saga stays as it is
                if not self._resolved(entry) and entry.is_overdue:
                    self._park(entry)

    def _resolved(self, entry: Entry) -> bool:
        try:
            return self._runner.resolve(SAGAS[entry.flow], entry)
        except Unknown:
            raise
        except Exception:  # whatever it is, it must not be tried for ever in silence
            logger.exception("%s %s cannot be resolved", entry.flow, entry.subject)
            return False

    def _park(self, entry: Entry) -> None:
        at_stake = {"subject": str(entry.subject), **self._runner.at_stake(SAGAS[entry.flow], entry)}
        result = {"code": "SERVICE_UNAVAILABLE", "message": "Parked: a person has to look at it.", "details": at_stake}
        if self._journal.end(entry, Status.PARKED, result):
            PARKED.labels(entry.flow).inc()
            logger.critical(
                "PARKED %s %s: see `python -m services.orchestrator.admin show %s`",
                entry.flow,
                entry.subject,
                entry.saga_id,
            )


class Completion:
    """Takes up verified transfers whose confirm died between the second code and the swap."""

    def __init__(self, participants: Participants, runner: Runner) -> None:
        self._orders = participants.orders
        self._runner = runner

    def tick(self) -> None:
        """Start the swap of each verified transfer; where its confirm is just doing so, this joins it."""
        waiting = self._orders.transfers(status=TransferStatus.PENDING_OTP, both_verified="true", per_page=50)
        for transfer in waiting["data"]:
            self._take_up(transfer["transfer_id"])

    def _take_up(self, transfer_id: str) -> None:
        with suppress(Refused, Unknown):  # it ended otherwise, or somebody is at it, or the next tick tries again
            self._runner.run(TRANSFER_CONFIRM, UUID(transfer_id), {"transfer_id": transfer_id})
