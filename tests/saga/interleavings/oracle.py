"""The verdict on an execution: it equals a serial order, or it is a declared exception.

The end state must be that of a serial order, and the answers must be those of the same order. Each row of `EXCEPTIONS`
declares other answers, with the end state that they need and the reason. Those of `DEEP_EXCEPTIONS` occur only with a
third actor or a fault, so `make interleavings` checks that they still occur.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import combinations, permutations, product

from tests.saga.interleavings.explorer import Run
from tests.saga.interleavings.pair_runner import Injected, PairRunner, Result
from tests.saga.interleavings.pairs import Pair

SERIAL, OTHER_ALONE, ANY_STATE = "a serial order", "a serial order without the actor", "one of both"


@dataclass(frozen=True)
class Deviation:
    """An outcome of no serial order that is right. `*` matches any text, and both orders of the actors match."""

    actor: str  # the one whose answer differs
    other: str
    answer: str
    state: str  # SERIAL, OTHER_ALONE, ANY_STATE or a pattern of the end state
    reason: str

    def __str__(self) -> str:
        return f"{self.actor} with {self.other}: {self.answer}. {self.reason}"

    def names(self, name: str, acts: Mapping[str, str]) -> bool:
        """Whether this row is about an actor and one of the others."""
        others = (act for other, act in acts.items() if other != name)
        return fnmatchcase(acts[name], self.actor) and any(fnmatchcase(act, self.other) for act in others)


EXCEPTIONS = (
    Deviation("*", "*", "409 REQUEST_IN_PROGRESS", OTHER_ALONE, "Another flow works on the same order or transfer."),
    Deviation("pay", "*", "4?? *", SERIAL, "The hold expired after the first check, so a later check refuses."),
    Deviation("reserve*", "RECOVERY", "503 SERVICE_UNAVAILABLE", ANY_STATE, "Recovery undid the hold."),
    Deviation("take-over", "RECOVERY", "503 SERVICE_UNAVAILABLE", "*seat: AVAILABLE*", "Recovery undid the hold."),
    Deviation("pay", "RECOVERY", "500 INTERNAL_ERROR", "*buyer FAILED*", "Recovery voided the pivot first."),
    Deviation("confirm", "RECOVERY", "500 INTERNAL_ERROR", "*buyer FAILED*", "Recovery voided the pivot first."),
    Deviation("*", "RECOVERY", "500 INTERNAL_ERROR", ANY_STATE, "Recovery undid the flow before its pivot."),
    Deviation("*", "*", "410 OTP_EXPIRED", SERIAL, "SMU accepts a code once, and the other request used it."),
    Deviation("resend", "verify-otp", "200", SERIAL, "The code was sent before the other request verified."),
    Deviation("confirm*", "*", "409 TRANSFER_INVALID_STATE", SERIAL, "The other actor ended the transfer first."),
    Deviation(
        "wrong*", "confirm", "409 TRANSFER_INVALID_STATE", SERIAL, "The transfer ended before the guess counted."
    ),
    Deviation("onward", "dispute", "409 TRANSFER_INVALID_STATE", OTHER_ALONE, "The dispute failed the new transfer."),
    Deviation("initiate", "ORDER SWEEPER", "409 TRANSFER_INVALID_STATE", OTHER_ALONE, "The new transfer expired."),
    Deviation("take-over*", "reserve", "409 SEAT_UNAVAILABLE", OTHER_ALONE, "It came before the hold."),
    Deviation("initiate", "*", "409 TRANSFER_IN_PROGRESS", SERIAL, "The seat had its new owner before the transfer."),
    Deviation("initiate", "refund", "201 *", "*orders: seller REFUNDED*AVAILABLE -", "The refund failed the transfer."),
)
DEEP_EXCEPTIONS = (  # only with a third actor or a fault
    Deviation("*", "*", "503 SERVICE_UNAVAILABLE", ANY_STATE, "A reply was lost, so the result is not known yet."),
    Deviation("reserve*", "RECOVERY", "409 SEAT_UNAVAILABLE", OTHER_ALONE, "Recovery undid the hold that it met."),
)


@dataclass
class Oracle:
    """The outcomes that a pair may have, from the serial orders of all actors, and of some of them.

    With a fault, the serial orders under this fault count too. An actor whose process died has no answer, so each end
    that it may have is right.
    """

    pair: Pair
    runner: PairRunner
    injected: Injected | None = None
    serial: dict[frozenset[str], list[Result]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for count in range(len(self.pair.acts) + 1):
            for names in combinations(self.pair.acts, count):
                faults = {None, self.injected if self.injected and self.injected.actor in names else None}
                self.serial[frozenset(names)] = [
                    self._execute_in_order(order, fault) for order in permutations(names) for fault in faults
                ]

    def _execute_in_order(self, order: tuple[str, ...], injected: Injected | None) -> Result:
        acts = {name: self.pair.acts[name] for name in order}
        return self.runner.execute(self.pair.situation, order[:1], acts, injected)

    def run(self, prefix: tuple[str, ...]) -> Run:
        """Execute a schedule and judge it."""
        return self.judge(prefix, self.runner.execute(self.pair.situation, prefix, self.pair.acts, self.injected))

    def judge(self, prefix: tuple[str, ...], result: Result) -> Run:
        """Return the run with its problem or its declared exception."""
        problem, exception = "\n".join(result.violations), self._explain(result)
        if exception is None:
            expected = "\n".join(f"  {one.outcome}" for one in self.serial[frozenset(self.pair.acts)])
            problem += (
                f"\nno serial order and no declared exception gives\n  {result.outcome}\nserial orders:\n{expected}"
            )
        return Run(prefix, result.steps, result.outcome, result.state, problem.strip(), exception or "")

    def _explain(self, result: Result) -> str | None:
        """Return the exception that the outcome needs, empty if it is a serial order, or None if it is not declared."""
        excuses = {name: list(self._find_excuses(name, answer)) for name, answer in result.answers.items()}
        for chosen in sorted(product(*excuses.values()), key=lambda chosen: sum(bool(text) for _, text in chosen)):
            by_name = dict(zip(excuses, chosen, strict=True))
            if any(not text for _, text in chosen) and self._has_order(result, by_name):
                return "; ".join(text for _, text in chosen if text)
        rows = [row for name, answer in result.answers.items() for row in self._find_rows(name, answer)]
        patterns = [row for row in rows if row.state not in (SERIAL, OTHER_ALONE, ANY_STATE)]
        return next((str(row) for row in patterns if fnmatchcase(result.state, row.state)), None)

    def _find_rows(self, name: str, answer: str) -> list[Deviation]:
        declared = EXCEPTIONS + DEEP_EXCEPTIONS * bool(self.pair.c or self.injected)
        rows = [row for row in declared if row.names(name, self.pair.acts)]
        return rows if self._has_died(name) else [row for row in rows if fnmatchcase(answer, row.answer)]

    def _has_died(self, name: str) -> bool:
        return bool(self.injected and self.injected.is_death and self.injected.actor == name)

    def _find_excuses(self, name: str, answer: str) -> Iterator[tuple[str, str]]:
        """The ways to treat an actor: `compare` its answer, `ignore` it, or leave the actor `out`, with the reason."""
        yield "compare", ""
        if self._has_died(name):
            yield from (("ignore", ""), ("out", ""))
        for row in self._find_rows(name, answer):
            if row.state in (SERIAL, ANY_STATE):
                yield "ignore", str(row)
            if row.state in (OTHER_ALONE, ANY_STATE):
                yield "out", str(row)

    def _has_order(self, result: Result, ways: Mapping[str, tuple[str, str]]) -> bool:
        compared = [name for name, (way, _) in ways.items() if way == "compare"]
        orders = self.serial[frozenset(name for name, (way, _) in ways.items() if way != "out")]
        return any(
            one.state == result.state and all(one.answers[name] == result.answers[name] for name in compared)
            for one in orders
        )
