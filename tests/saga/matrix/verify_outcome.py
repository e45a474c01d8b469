"""Verifies one execution: its faults fired, every invariant holds, and the outcome is the expected one.

The table has the outcome of each single fault. The outcome of a pair follows from the table in two cases. In the other
case the flow must reach one of its declared ends, and the response must not contradict that end.

    second fault during recovery       same outcome as the first alone, because a failed recovery is only repeated
    first fault healed by a retry      same outcome as the second alone
    both faults do harm                any declared end (also when recovery begins the saga)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.saga.in_process.faults import HEALED_BY_RETRY, RECOVERY, Kind
from tests.saga.matrix.expected_outcomes import END_STATES, read_table

Cell = tuple[str, tuple[tuple[str, str], ...]]  # flow, ((edge, kind), …)
Result = dict[str, Any]  # of one execution, as JSON, because it crosses processes and goes into the report

EXPECTED = read_table()
CRASHES = (Kind.DIES_BEFORE, Kind.DIES_AFTER)
SECOND_FAULTS = {  # first fault: each second fault, injected at every edge that is reached after the first
    Kind.LOST: CRASHES,
    Kind.BLINK_GIVES_UP: (Kind.LOST_GIVES_UP, *CRASHES),
    Kind.LOST_GIVES_UP: (Kind.LOST_GIVES_UP, *CRASHES),
    Kind.DIES_AFTER: (Kind.LOST_GIVES_UP, *CRASHES),
}
FALSE_RESPONSES = {("=", "U"), ("=", "u"), ("=", "V"), ("=", "N"), ("5", "D"), ("4", "D")}


def find_problems(result: Result) -> list[str]:
    """Return everything that is wrong with a result, or an empty list."""
    return [*_check_fired(result), *result["violations"], *_check_outcome(result)]


def expected_code(cell: Cell) -> str | None:
    """Return the two characters that a cell must have, or None if the table does not decide them."""
    flow, faults = cell
    if not faults:
        return "=D"
    first, *rest = ((edge, Kind(kind)) for edge, kind in faults)
    alone = EXPECTED[flow, *first]
    if not rest:
        return alone
    if rest[0][0].startswith(RECOVERY):
        is_begun_by_recovery = alone[1] == "A" or (alone[1] == "D" and _is_before_begin(flow, *first))
        return None if is_begun_by_recovery else alone
    is_healed = first[1] in HEALED_BY_RETRY and alone == "=D"
    return EXPECTED[_without_first(flow, first[0], *rest[0])] if is_healed else None


def _is_before_begin(flow: str, edge: str, kind: Kind) -> bool:
    """Whether the request failed before its saga began, so that only recovery can begin it."""
    edges = [known for f, known, _ in EXPECTED if f == flow]
    begin = edges.index("journal begin") if "journal begin" in edges else 0
    return edges.index(edge) < begin or (edge == "journal begin" and kind is Kind.BLINK_GIVES_UP)


def _without_first(flow: str, lost: str, edge: str, kind: Kind) -> tuple[str, str, Kind]:
    """The cell of the second fault alone: without the first fault, a lost reply, its call was not repeated."""
    name, _, number = edge.partition("#")
    earlier = int(number or 1) - (name == lost.partition("#")[0])
    same = f"{name}#{earlier}" if earlier > 1 else name
    if same == lost or (flow, same, kind) not in EXPECTED:  # the second fault hits the retry of the first call
        return flow, lost, Kind.DIES_AFTER
    return flow, same, kind


def cell_of(result: Result) -> Cell:
    """The cell of a result."""
    return result["flow"], tuple((edge, kind) for edge, kind in result["faults"])


def replay_command(cell: Cell) -> str:
    """The command that repeats this execution."""
    return f'pytest tests/saga/matrix/test_matrix.py --cell "{format_cell(cell)}"'


def format_cell(cell: Cell) -> str:
    """`flow | edge | fault`, and ` | edge | fault` for a second fault."""
    flow, faults = cell
    return " | ".join((flow, *(part for fault in faults for part in fault)))


def parse_cell(text: str) -> Cell:
    """Read the format of `format_cell`. Raises ValueError for an unknown flow, edge or fault."""
    flow, *parts = (part.strip() for part in text.split("|"))
    faults = tuple(zip(parts[::2], parts[1::2], strict=True))
    known = {(f, edge) for f, edge, _ in EXPECTED}
    for edge, kind in faults:
        if (flow, edge) not in known and not edge.startswith(RECOVERY):
            raise ValueError(f"{flow} has no edge {edge!r}: see tests/saga/matrix/expected_outcomes.py")
        Kind(kind)
    return flow, faults


def _check_fired(result: Result) -> Iterator[str]:
    yield from (f"never fired: {edge}: {kind}" for edge, kind in result["unfired"])


def _check_outcome(result: Result) -> Iterator[str]:
    expected, (response, end) = expected_code(cell_of(result)), result["code"]
    if expected is not None and expected != response + end:
        yield f"the outcome is {response}{end}, expected {expected}"
    elif end not in END_STATES[result["flow"]]:
        yield f"the state matches no end of the flow: {result['end_state']}, {result['sagas']}"
    elif (response, end) in FALSE_RESPONSES:
        yield f"the response {response} contradicts the end {end}"
