"""Explores the schedules of a pair with few preemptions, and shrinks a schedule that fails.

A schedule is a text such as `pay~scan (held): a7 b2 a`. Actor *a* takes 7 steps, *b* takes 2, then *a* continues. After
the text no actor is preempted any more. The bound of preemptions is the idea of CHESS (Musuvathi and Qadeer, 2007). A
preemption before a step that conflicts with no step of the other actor is left out. One step later has the same end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import inf

from tests.saga.interleavings.scheduler import Step


@dataclass(frozen=True)
class Run:
    """One execution: its prefix of actors, its steps, and what the oracle found."""

    prefix: tuple[str, ...]
    steps: tuple[Step, ...]
    outcome: str  # the answers and the end state
    state: str
    problem: str = ""
    exception: str = ""  # the reason of the declared exception that the outcome needed

    @property
    def preemptions(self) -> int:
        """The number of switches from an actor that could have continued."""
        return sum(
            not step.is_forced and step.actor != before.actor
            for before, step in zip(self.steps, self.steps[1:], strict=False)
        )

    @property
    def is_serial(self) -> bool:
        """Whether each actor ran in one piece."""
        return len(list(groupby(step.actor for step in self.steps))) == len({step.actor for step in self.steps})

    def describe(self) -> str:
        """The steps as a sequence, one line each and a column for each actor."""
        names = sorted({step.actor for step in self.steps})
        lines = []
        for number, step in enumerate(self.steps, 1):
            lines.append(f"  {number:3}  {' ' * 48 * names.index(step.actor)}{step.actor} {step.label}")
        return "\n".join(lines)


NOT_FOLLOWED = "the schedule cannot be followed"
Execute = Callable[[tuple[str, ...]], Run]


def format_prefix(prefix: Sequence[str]) -> str:
    """The text of a prefix. The last actor has no number, because it continues."""
    parts = [(name, len(list(group))) for name, group in groupby(prefix)]
    return " ".join(f"{name}{count}" for name, count in parts[:-1]) + f" {parts[-1][0]}" * bool(parts)


def parse_prefix(text: str) -> tuple[str, ...]:
    """The actors of a text such as `a7 b2 a`."""
    return tuple(name for part in text.split() for name in part[0] * int(part[1:] or 1))


State = tuple[tuple[str, int], ...]


@dataclass
class Exploration:
    """The runs of a pair, at most `bound` preemptions each. It stops at the first problem if `stops` is set.

    It also stops after `limit` executions. `is_complete` is false if schedules are left then.

    Two reductions leave out schedules with the same end as another one. A prefix in a known state is not executed
    again (`find_states`). Of two actors, none is preempted before a step that conflicts with no step of the other.
    """

    execute: Execute
    actors: tuple[str, ...]
    bound: float
    limit: float = inf
    stops: bool = False
    runs: list[Run] = field(default_factory=list)
    is_complete: bool = True
    continued: set[tuple[State, str]] = field(default_factory=set)  # each state, with the actor that continued there

    def explore(self) -> list[Run]:
        """Execute all schedules, those with fewer preemptions first."""
        level, spent = [run for name in self.actors if (run := self._execute((name,), ()))], 0
        while level:
            for run in level:  # it grows: a third actor can continue when one has ended, which is no preemption
                level += self._expand(run, is_forced=True)
            if spent == self.bound:
                break
            level, spent = [child for run in level for child in self._expand(run, is_forced=False)], spent + 1
        return self.runs

    def _is_over(self) -> bool:
        return self.stops and bool(self.runs) and bool(self.runs[-1].problem)

    def _execute(self, prefix: tuple[str, ...], state: State) -> Run | None:
        """Execute a prefix. `state` is the state before its last step, from which an equal run may have continued."""
        if (state, prefix[-1]) in self.continued or self._is_over():
            return None
        if len(self.runs) >= self.limit:
            self.is_complete = False
            return None
        run = self.execute(prefix)
        self.runs.append(run)
        states = find_states(run.steps)
        self.continued |= {(states[at], run.steps[at].actor) for at in range(len(prefix) - 1, len(run.steps))}
        return run

    def _expand(self, run: Run, *, is_forced: bool) -> Iterator[Run]:
        """Let another actor continue after the prefix, at each step where that can matter, the last one first.

        That is a preemption unless `is_forced`: then the actor of the step before could not continue.
        """
        steps, states, representative = run.steps, find_states(run.steps), dict[str, tuple[Step, ...]]()
        for at in range(len(steps) - 1, len(run.prefix) - 1, -1):
            step = steps[at]
            for other in step.others if step.is_forced == is_forced else ():
                if at + 1 == len(steps) or steps[at + 1].actor != step.actor:  # the end of this actor's turn
                    representative[other] = _take_turn(steps[at + 1 :], step.actor, other)
                turn = () if is_forced or len(self.actors) > 2 else representative.get(other, ())
                if turn and not any(step.conflicts(later) for later in turn):
                    continue
                child = self._execute((*(s.actor for s in steps[:at]), other), states[at])
                representative[other] = _take_turn(child.steps[at:], step.actor, other) if child else ()
                if child:
                    yield child


def find_states(steps: Sequence[Step]) -> list[State]:
    """Return the state before each step. Two prefixes have the same one if they differ only in independent steps.

    A step depends on the earlier steps of its actor and on those that it conflicts with. Its number stands for all that
    it depends on, and the last step of each actor stands for the whole prefix.
    """
    numbers: list[int] = []
    last: dict[str, int] = {}
    states: list[State] = [()]
    for step in steps:
        before = frozenset(number for number, other in zip(numbers, steps, strict=False) if step.conflicts(other))
        numbers.append(hash((step.actor, last.get(step.actor), before)))
        last[step.actor] = numbers[-1]
        states.append(tuple(sorted(last.items())))
    return states


def _take_turn(steps: Sequence[Step], preempted: str, other: str) -> tuple[Step, ...]:
    """The steps of the others until the preempted actor continues. Empty if `other` does not come first."""
    end = next((at for at, step in enumerate(steps) if step.actor == preempted), len(steps))
    return tuple(steps[:end]) if steps and steps[0].actor == other else ()


def shrink(failing: Run, execute: Execute) -> Run:
    """Return a run with fewer switches that still has a problem: remove switches while one remains."""
    best, is_smaller = failing, True
    while is_smaller:
        is_smaller = False
        for candidate in _without_a_switch(best):
            run = execute(candidate)
            is_followed = NOT_FOLLOWED not in run.problem
            if (
                run.problem
                and is_followed
                and (run.preemptions, len(run.prefix)) < (best.preemptions, len(best.prefix))
            ):
                best, is_smaller = run, True
                break
    return best


def _without_a_switch(run: Run) -> Iterator[tuple[str, ...]]:
    parts = [(name, len(list(group))) for name, group in groupby(run.prefix)]
    for gone in range(len(parts) - 1, -1, -1):
        kept = parts[:gone] + parts[gone + 1 :]
        if kept:
            yield tuple(name for name, count in kept for _ in range(count))
    if len(parts) > 1 and parts[0][1] > 1:
        yield run.prefix[1:]
