"""Explores a state machine with Hypothesis in two stages, so that a failure is known before it is shrunk.

Shrinking a failure of the whole system takes many minutes. `explore` therefore returns the first failing example as it
was found, and `shrink` shortens it for a limited time.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.database import InMemoryExampleDatabase
from hypothesis.internal.conjecture import engine
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

MachineClass = type[RuleBasedStateMachine]


@dataclass(frozen=True)
class Failure:
    """A failing example: its steps and traceback, its Hypothesis version and blob, and its saved choices."""

    text: str
    blob: str
    examples: dict[bytes, set[bytes]]


def explore(machine: MachineClass, profile: settings) -> Failure | None:
    """Run examples until the first failure, and return it without shrinking."""
    return _run(machine, profile, (Phase.explicit, Phase.generate), {})


def shrink(machine: MachineClass, failure: Failure, profile: settings, seconds: int) -> Failure:
    """Shrink a failure for at most about `seconds`, and return the shortest failing example."""
    # Hypothesis does not shrink an example under the main key again, because it was saved there after shrinking.
    unshrunk = {key + b".secondary": values for key, values in failure.examples.items()}
    with _limit_shrinking(seconds):
        return _run(machine, profile, (Phase.reuse, Phase.shrink), unshrunk) or failure


def _run(
    machine: MachineClass, profile: settings, phases: tuple[Phase, ...], examples: dict[bytes, set[bytes]]
) -> Failure | None:
    database = InMemoryExampleDatabase()
    database.data = {key: set(values) for key, values in examples.items()}
    try:
        run_state_machine_as_test(machine, settings=settings(profile, phases=phases, database=database))
    except Exception as failure:
        text = "".join(traceback.format_exception(failure))
        blob = re.search(r"reproduce_failure\('([^']+)', b'([^']+)'\)", text)
        return Failure(text, f"{blob[1]}:{blob[2]}" if blob else "", database.data)
    return None


@contextmanager
def _limit_shrinking(seconds: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        limits: Any = engine
        patch.setattr(limits, "MAX_SHRINKING_SECONDS", seconds)
        yield
