"""Is there an order of these operations, each at one moment between its call and its answer, that the object allows?

Wing and Gong's search (1993), breadth first: the history is read event by event, and what is kept is the set of
configurations that explain it so far, each a state and those open operations that have happened already. Being a set,
it remembers what was explored. An answer keeps the configurations in which its operation has happened; when none is
left, no order explains the history. A history is linearizable if it is so for each object (Herlihy, Wing): they are
checked apart.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

NEVER = math.inf  # when the answer came of an operation whose end nobody knows: it may yet happen, or not
State = Hashable


@dataclass(frozen=True, eq=False)
class Op:
    """One operation: who asked what, when (seconds), and what was answered; `got` None: nobody knows."""

    client: str
    what: str
    given: tuple[str, ...]
    got: str | None
    call: float
    back: float = NEVER

    def __str__(self) -> str:
        return f"{self.what}({', '.join(self.given)}) → {self.got or '?'}"


class Model(Protocol):
    """How the object behaves when one operation comes after another."""

    def after(self, state: State, op: Op) -> State | None:
        """The state after `op` with its answer; None where `state` cannot answer so."""

    def changes(self, op: Op) -> bool:
        """False when an operation with this answer leaves every state as it is."""


@dataclass(frozen=True)
class Counterexample:
    """From an object in one of `states`, no order of `ops` explains what `wrong` was answered."""

    key: str
    states: tuple[State, ...]
    ops: tuple[Op, ...]
    wrong: Op

    def __str__(self) -> str:
        lines = [
            f"  {o.call:9.4f} … {o.back:9.4f}  {o.client:<10} {o}{' ← here' * (o is self.wrong)}" for o in self.ops
        ]
        return "\n".join([f"{self.key}, from {' or '.join(map(str, self.states))}:", *lines])


Configuration = tuple[State, frozenset[Op]]


@dataclass
class _Search:
    """The configurations that explain a history so far, and the operations that are open."""

    model: Model
    configurations: set[Configuration]
    open: dict[Op, None] = field(default_factory=dict)

    def called(self, op: Op) -> None:
        self.open[op] = None
        self.configurations = {self._settled(state, happened) for state, happened in self.configurations}

    def answered(self, op: Op) -> bool:
        """Keep the configurations in which `op` has happened; False when there is none."""
        seen, found = set[Configuration](), set[Configuration]()
        frontier = list(self.configurations)
        while frontier:
            state, happened = configuration = frontier.pop()
            if configuration in seen:
                continue
            seen.add(configuration)
            if op in happened:
                found.add((state, happened - {op}))
            else:
                frontier.extend(self._successors(state, happened))
        self.configurations = found
        del self.open[op]
        return bool(found)

    def _successors(self, state: State, happened: frozenset[Op]) -> Iterable[Configuration]:
        for op in self.open:
            if op not in happened and self.model.changes(op) and (after := self.model.after(state, op)) is not None:
                yield self._settled(after, happened | {op})

    def _settled(self, state: State, happened: frozenset[Op]) -> Configuration:
        """What changes nothing happens as soon as it can: later it could do no more, and no other order is lost."""
        idle = (op for op in self.open if op not in happened and not self.model.changes(op))
        return state, happened.union(op for op in idle if self.model.after(state, op) is not None)


def check(histories: Mapping[str, Sequence[Op]], model: Model, start: State) -> Counterexample | None:
    """A counterexample, minimised; None when every object's history is linearizable."""
    for key, ops in histories.items():
        if failure := _failure(key, ops, model, (start,)):
            return _minimised(failure, model)
    return None


def _failure(key: str, ops: Sequence[Op], model: Model, start: tuple[State, ...]) -> Counterexample | None:
    """What came since the last moment at which nothing was open, up to the first answer that nothing explains."""
    search, since = _Search(model, {(state, frozenset()) for state in start}), list[Op]()
    for _, is_answer, _, op in sorted(_events(ops), key=lambda event: event[:3]):  # at one instant, calls come first
        if is_answer:
            if not search.answered(op):
                return Counterexample(key, start, tuple(since), op)
            continue
        if not search.open:
            start, since = tuple(dict.fromkeys(state for state, _ in search.configurations)), []
        search.called(op)
        since.append(op)
    return None


def _events(ops: Sequence[Op]) -> Iterable[tuple[float, bool, int, Op]]:
    for number, op in enumerate(ops):
        yield op.call, False, number, op
        if op.back < NEVER:
            yield op.back, True, number, op


def _minimised(failure: Counterexample, model: Model) -> Counterexample:
    """Without what the failure does not need, taken out by halves, quarters … Only what changes nothing may go:
    without a change that did happen, right answers after it would look wrong."""
    idle = [op for op in failure.ops if op is not failure.wrong and not model.changes(op)]
    size = len(idle)
    while size:
        for at in range(0, len(idle), size):
            fewer = [op for op in failure.ops if op not in set(idle[at : at + size])]
            again = _failure(failure.key, fewer, model, failure.states)
            failure = again if again and again.wrong is failure.wrong else failure
        size //= 2
    return failure
