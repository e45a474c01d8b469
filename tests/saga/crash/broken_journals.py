"""Journals without a guard. With each of them, the checks of the crash tests must fail."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from services.orchestrator.saga.journal import Entry, Journal, NoticeDue, Status


class NoBeginWrite(Journal):
    """Writes nothing before the first step, so no process can find the saga after a crash."""

    def begin(
        self,
        flow: str,
        subject: UUID,
        given: Mapping[str, Any],
        *,
        caller: UUID | None,
        dispute_number: int,
        one_attempt: bool,
    ) -> tuple[Entry, bool]:
        """Return an entry that is in no database."""
        entry = Entry(
            saga_id=uuid4(),
            flow=flow,
            subject=subject,
            dispute_number=dispute_number,
            attempt=1,
            caller=caller,
            given=given,
            status=Status.RUNNING,
            result=None,
            epoch=1,
            correlation_id=None,
            is_overdue=False,
        )
        return entry, True


class NoticesAfterEnd(Journal):
    """Writes the outbox rows in a transaction after the end write. The process dies between the two."""

    def end(self, entry: Entry, status: Status, result: Mapping[str, Any], notices: Sequence[NoticeDue] = ()) -> bool:
        """Write the end without its notices, and kill this process."""
        super().end(entry, status, result)
        os.killpg(os.getpgrp(), signal.SIGKILL)
        return True


BROKEN_JOURNALS: dict[str, type[Journal]] = {each.__name__: each for each in (NoBeginWrite, NoticesAfterEnd)}
