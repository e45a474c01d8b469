"""What one execution is held to: that its faults struck, that every invariant holds, and that it ended as declared.

A single fault has its cell in the table. Of two faults, the outcome follows from the table wherever the second cannot
matter or the first was healed; where neither is so, the flow has to come to one of its honest ends, and the client is
not told a lie.

    first …, second in recovery      as the first alone: recovery that fails is only recovery that takes longer
    first healed by asking again     as the second alone
    two that both do harm            an honest end, no lie; so too where recovery itself begins the saga
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.saga.in_process.faults import HEALED, RECOVERY, Kind
from tests.saga.matrix.expected_outcomes import ENDS, declared

Cell = tuple[str, tuple[tuple[str, str], ...]]  # flow, ((edge, kind), …)
Result = dict[str, Any]  # what one execution came to, in words that cross process boundaries and enter the report

DECLARED = declared()
DEATHS = (Kind.DIES_BEFORE, Kind.DIES_AFTER)
SECONDS = {  # first fault: what is laid over it, one at a time, at every edge that is still reached
    Kind.LOST: DEATHS,
    Kind.BLINK_GIVES_UP: (Kind.LOST_GIVES_UP, *DEATHS),
    Kind.LOST_GIVES_UP: (Kind.LOST_GIVES_UP, *DEATHS),
    Kind.DIES_AFTER: (Kind.LOST_GIVES_UP, *DEATHS),
}
LIES = {("=", "U"), ("=", "u"), ("=", "V"), ("=", "N"), ("5", "D"), ("4", "D")}


def wrongs(result: Result) -> list[str]:
    """Everything that is not as it has to be; nothing, if it is."""
    return [*_unfired(result), *result["violations"], *_undeclared(result)]


def expected(cell: Cell) -> str | None:
    """The two characters that a cell has to come to; None where the table does not decide it."""
    flow, faults = cell
    if not faults:
        return "=D"
    first, *rest = ((edge, Kind(kind)) for edge, kind in faults)
    alone = DECLARED[flow, *first]
    if not rest:
        return alone
    if rest[0][0].startswith(RECOVERY):
        begins = alone[1] == "A" or (alone[1] == "D" and _is_before_begin(flow, *first))
        return None if begins else alone
    healed = first[1] in HEALED and alone == "=D"
    return DECLARED[_without(flow, first[0], *rest[0])] if healed else None


def _is_before_begin(flow: str, edge: str, kind: Kind) -> bool:
    """True when the request had not begun its saga: what recovery does then is begin it."""
    edges = [known for f, known, _ in DECLARED if f == flow]
    begin = edges.index("journal begin") if "journal begin" in edges else 0
    return edges.index(edge) < begin or (edge == "journal begin" and kind is Kind.BLINK_GIVES_UP)


def _without(flow: str, lost: str, edge: str, kind: Kind) -> tuple[str, str, Kind]:
    """The second fault as it strikes where the first, a lost reply, did not: the step was not asked again."""
    name, _, number = edge.partition("#")
    earlier = int(number or 1) - (name == lost.partition("#")[0])
    same = f"{name}#{earlier}" if earlier > 1 else name
    if same == lost or (flow, same, kind) not in DECLARED:  # it is the asking again that is struck
        return flow, lost, Kind.DIES_AFTER
    return flow, same, kind


def cell_of(result: Result) -> Cell:
    """Which execution that was."""
    return result["flow"], tuple((edge, kind) for edge, kind in result["faults"])


def replay(cell: Cell) -> str:
    """The one command that runs exactly this again."""
    return f'pytest tests/saga/matrix/test_matrix.py --cell "{named(cell)}"'


def named(cell: Cell) -> str:
    """flow | edge | fault, and once more edge | fault for the second."""
    flow, faults = cell
    return " | ".join((flow, *(part for fault in faults for part in fault)))


def parsed(name: str) -> Cell:
    """The cell of that name. Raises ValueError when there is no such flow, edge or fault."""
    flow, *parts = (part.strip() for part in name.split("|"))
    faults = tuple(zip(parts[::2], parts[1::2], strict=True))
    known = {(f, edge) for f, edge, _ in DECLARED}
    for edge, kind in faults:
        if (flow, edge) not in known and not edge.startswith(RECOVERY):
            raise ValueError(f"{flow} has no edge {edge!r}")
        Kind(kind)
    return flow, faults


def _unfired(result: Result) -> Iterator[str]:
    yield from (f"never fired: {edge}: {kind}" for edge, kind in result["unfired"])


def _undeclared(result: Result) -> Iterator[str]:
    due, (told, end) = expected(cell_of(result)), result["code"]
    if due is not None and due != told + end:
        yield f"ended {told}{end}, declared is {due}"
    elif end not in ENDS[result["flow"]]:
        yield f"an end that nobody declared: {result['standing']}, {result['sagas']}"
    elif (told, end) in LIES:
        yield f"the client was told {told} and it ended {end}"
