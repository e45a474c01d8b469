"""The verdict on an execution: it equals a serial order, or it is a declared exception.

The end state must be that of a serial order, and the answers must be those of the same order. Each row of `EXCEPTIONS`
declares other answers, with the end state that they need and the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from tests.saga.interleavings.explorer import Run
from tests.saga.interleavings.pair_runner import Result
from tests.saga.interleavings.pairs import Pair

SERIAL, OTHER_ALONE, ANY_STATE = "a serial order", "the other actor alone", "any of these, or nothing happened"


@dataclass(frozen=True)
class Deviation:
    """An outcome of no serial order that is right. `*` matches any text, and both orders of the actors match."""

    actor: str  # the one whose answer differs
    other: str
    answer: str
    state: str  # SERIAL, OTHER_ALONE, ANY_STATE or a pattern of the end state
    reason: str


EXCEPTIONS = (
    Deviation("*", "*", "409 REQUEST_IN_PROGRESS", OTHER_ALONE, "Another flow works on the same order or transfer."),
    Deviation("pay", "*", "4?? *", SERIAL, "The hold expired after the first check, so a later check refuses."),
    Deviation("reserve*", "RECOVERY", "503 SERVICE_UNAVAILABLE", ANY_STATE, "Recovery undid the hold."),
    Deviation("take-over", "RECOVERY", "503 SERVICE_UNAVAILABLE", "*seat: AVAILABLE*", "Recovery undid the hold."),
    Deviation("pay", "RECOVERY", "500 INTERNAL_ERROR", "*orders: buyer FAILED*", "Recovery voided the pivot first."),
    Deviation("confirm", "RECOVERY", "500 INTERNAL_ERROR", "*buyer FAILED*", "Recovery voided the pivot first."),
    Deviation("*", "RECOVERY", "500 INTERNAL_ERROR", ANY_STATE, "Recovery undid the flow before its pivot."),
    Deviation("*", "*", "410 OTP_EXPIRED", SERIAL, "SMU accepts a code once, and the other request used it."),
    Deviation("verify-otp", "resend", "200", SERIAL, "The code was sent before the other request verified."),
    Deviation("resend", "verify-otp", "200", SERIAL, "The code was sent before the other request verified."),
    Deviation("confirm*", "*", "409 TRANSFER_INVALID_STATE", SERIAL, "The other actor ended the transfer first."),
    Deviation(
        "wrong*", "confirm", "409 TRANSFER_INVALID_STATE", SERIAL, "The transfer ended before the guess counted."
    ),
    Deviation("onward", "dispute", "409 TRANSFER_INVALID_STATE", OTHER_ALONE, "The dispute failed the new transfer."),
    Deviation("initiate", "*", "409 TRANSFER_IN_PROGRESS", SERIAL, "The seat had its new owner before the transfer."),
    Deviation("initiate", "refund", "409 TRANSFER_INVALID_STATE", SERIAL, "The refund failed the new transfer."),
    Deviation("initiate", "refund", "201 *", "*orders: seller REFUNDED*AVAILABLE -", "The refund failed the transfer."),
)


@dataclass
class Oracle:
    """The outcomes that a pair may have, from its serial orders and from each actor alone."""

    pair: Pair
    execute: Callable[[Sequence[str], Mapping[str, str]], Result]
    acts: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.acts = {"a": self.pair.a, "b": self.pair.b}
        self.serial = [self.execute((name,), self.acts) for name in self.acts]
        self.alone = {name: self.execute((name,), {name: act}) for name, act in self.acts.items()}
        self.nothing = self.execute((), {})

    def run(self, prefix: tuple[str, ...]) -> Run:
        """Execute a schedule and judge it."""
        return self.judge(prefix, self.execute(prefix, self.acts))

    def judge(self, prefix: tuple[str, ...], result: Result) -> Run:
        """Return the run with its problem or its declared exception."""
        problem, exception = "\n".join(result.violations), ""
        if result.outcome not in [serial.outcome for serial in self.serial]:
            exception = self._find_exception(result)
            if not exception:
                expected = "\n".join(f"  {one.outcome}" for one in self.serial)
                problem += (
                    f"\nno serial order and no declared exception gives\n  {result.outcome}\nserial orders:\n{expected}"
                )
        return Run(prefix, result.steps, result.outcome, problem.strip(), exception)

    def _find_exception(self, result: Result) -> str:
        names = tuple(self.acts)
        for at, name in enumerate(names):
            for row in EXCEPTIONS:
                is_named = fnmatchcase(self.acts[name], row.actor) and fnmatchcase(self.acts[names[1 - at]], row.other)
                if is_named and fnmatchcase(result.answers[at], row.answer) and self._has_state(row, result, 1 - at):
                    return f"{row.actor} with {row.other}: {row.answer}. {row.reason}"
        return ""

    def _has_state(self, row: Deviation, result: Result, other: int) -> bool:
        serial = [one.state for one in self.serial if one.answers[other] == result.answers[other]]
        alone = [one for name, one in self.alone.items() if name == tuple(self.acts)[other]]
        alone_states = [one.state for one in alone if one.answers == (result.answers[other],)]
        if row.state == SERIAL:
            return result.state in serial
        if row.state == OTHER_ALONE:
            return result.state in alone_states
        if row.state == ANY_STATE:
            return result.state in (*serial, *alone_states, self.nothing.state)
        return fnmatchcase(result.state, row.state)
