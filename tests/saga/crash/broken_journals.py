"""Journals with a guard taken away: with one of them the checks of the crash_point tests have to fail."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from services.orchestrator.saga.journal import Entry, Journal, NoticeDue, Status


class NeverBegun(Journal):
    """Nothing is written before the first step: nobody can know of a saga whose process dies."""

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
        """An entry that is in no database."""
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


class NoticesAfterwards(Journal):
    """The outbox rows come in a transaction of their own, after the end's; the process dies between the two."""

    def end(self, entry: Entry, status: Status, result: Mapping[str, Any], notices: Sequence[NoticeDue] = ()) -> bool:
        """The end without its notices, and then crash_point."""
        super().end(entry, status, result)
        os.killpg(os.getpgrp(), signal.SIGKILL)
        return True


BROKEN_JOURNALS: dict[str, type[Journal]] = {each.__name__: each for each in (NeverBegun, NoticesAfterwards)}
