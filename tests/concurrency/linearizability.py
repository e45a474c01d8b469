"""A linearizability checker for recorded histories.

A history is linearizable if some order of its operations explains every result. Each operation takes effect at one
moment between its start and its end.

The checker does the search of Wing and Gong (1993) breadth first. It reads the events in time order and keeps the set
of configurations that explain the history so far. A configuration is a state and the open operations that have already
taken effect. The end of an operation keeps only the configurations in which it has taken effect. If none is left, no
order explains the history. Linearizability is local (Herlihy and Wing, 1990), so each object is checked separately.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

NEVER = math.inf  # end of an operation with an unknown outcome, which may take effect at any later time or not at all
State = Hashable


@dataclass(frozen=True, eq=False)
class Op:
    """One operation of a client. Times are in seconds. A `result` of None means that the outcome is unknown."""

    client: str
    what: str
    args: tuple[str, ...]
    result: str | None
    start: float
    end: float = NEVER

    def __str__(self) -> str:
        return f"{self.what}({', '.join(self.args)}) → {self.result or '?'}"


class Model(Protocol):
    """The sequential behaviour of the object."""

    def after(self, state: State, op: Op) -> State | None:
        """Return the state after `op`, or None if `op` cannot have its result in `state`."""

    def changes(self, op: Op) -> bool:
        """Return False if `op` with its result leaves every state unchanged."""


@dataclass(frozen=True)
class Counterexample:
    """A history that is not linearizable: no order of `ops` from any of `states` explains the result of `wrong`."""

    key: str
    states: tuple[State, ...]
    ops: tuple[Op, ...]
    wrong: Op

    def __str__(self) -> str:
        lines = [
            f"  {o.start:9.4f} … {o.end:9.4f}  {o.client:<10} {o}{' ← here' * (o is self.wrong)}" for o in self.ops
        ]
        return "\n".join([f"{self.key}, first state {' or '.join(map(str, self.states))}:", *lines])


Configuration = tuple[State, frozenset[Op]]


@dataclass
class _Search:
    """The configurations that explain a history so far, and the open operations."""

    model: Model
    configurations: set[Configuration]
    open: dict[Op, None] = field(default_factory=dict)

    def begin(self, op: Op) -> None:
        self.open[op] = None
        self.configurations = {self._apply_idle(state, applied) for state, applied in self.configurations}

    def end(self, op: Op) -> bool:
        """Keep the configurations in which `op` has taken effect. Returns False if there is none."""
        seen, found = set[Configuration](), set[Configuration]()
        frontier = list(self.configurations)
        while frontier:
            state, applied = configuration = frontier.pop()
            if configuration in seen:
                continue
            seen.add(configuration)
            if op in applied:
                found.add((state, applied - {op}))
            else:
                frontier.extend(self._successors(state, applied))
        self.configurations = found
        del self.open[op]
        return bool(found)

    def _successors(self, state: State, applied: frozenset[Op]) -> Iterable[Configuration]:
        for op in self.open:
            if op not in applied and self.model.changes(op) and (after := self.model.after(state, op)) is not None:
                yield self._apply_idle(after, applied | {op})

    def _apply_idle(self, state: State, applied: frozenset[Op]) -> Configuration:
        """Apply open operations that change nothing as soon as possible, because a later moment allows no more."""
        idle = (op for op in self.open if op not in applied and not self.model.changes(op))
        return state, applied.union(op for op in idle if self.model.after(state, op) is not None)


def check(histories: Mapping[str, Sequence[Op]], model: Model, start: State) -> Counterexample | None:
    """Return a minimal counterexample, or None if the history of every object is linearizable."""
    for key, ops in histories.items():
        if failure := _find_failure(key, ops, model, (start,)):
            return _minimize(failure, model)
    return None


def _find_failure(key: str, ops: Sequence[Op], model: Model, start: tuple[State, ...]) -> Counterexample | None:
    """Return the operations from the last moment without an open operation to the first unexplained result."""
    search, since = _Search(model, {(state, frozenset()) for state in start}), list[Op]()
    for _, is_end, _, op in sorted(_events(ops), key=lambda event: event[:3]):  # at the same time, starts come first
        if is_end:
            if not search.end(op):
                return Counterexample(key, start, tuple(since), op)
            continue
        if not search.open:
            start, since = tuple(dict.fromkeys(state for state, _ in search.configurations)), []
        search.begin(op)
        since.append(op)
    return None


def _events(ops: Sequence[Op]) -> Iterable[tuple[float, bool, int, Op]]:
    for number, op in enumerate(ops):
        yield op.start, False, number, op
        if op.end < NEVER:
            yield op.end, True, number, op


def _minimize(failure: Counterexample, model: Model) -> Counterexample:
    """Remove operations that the failure does not need, first halves, then quarters, and so on.

    Only operations that change nothing are removed. Without a real change, correct results after it would look wrong.
    """
    idle = [op for op in failure.ops if op is not failure.wrong and not model.changes(op)]
    size = len(idle)
    while size:
        for at in range(0, len(idle), size):
            fewer = [op for op in failure.ops if op not in set(idle[at : at + size])]
            again = _find_failure(failure.key, fewer, model, failure.states)
            failure = again if again and again.wrong is failure.wrong else failure
        size //= 2
    return failure
