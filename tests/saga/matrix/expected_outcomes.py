"""The expected outcome of every cell of the fault matrix, as a reviewer reads it.

A block is a flow. A row is an edge: one outgoing call of the orchestrator, in the order of the flow. A column is a kind
of fault in that call, in the order of `Kind`:

     1  down      no connection, for the call and all its retries
     2  5xx       an error response, for the call and all its retries
     3  silent    no effect and no response, for the call and all its retries
     4  mute      the effect happens, but no response ever arrives
     5  blink     no connection once, then a retry
     6  lost      the effect happens, the response is lost once, then a retry
     7  late      the call arrives late, after its retry
     8  twice     the call arrives twice
     9  blink, gives up      like 5, but the time for retries is over
    10  lost, gives up       like 6, but the time for retries is over
    11  late, gives up       like 7, but the time for retries is over
    12  dies before          the process crashes before the call
    13  dies after           the process crashes after the effect

A cell is two characters. The first one is the response to the client:

    =    success
    5    500, the flow has failed and is fully undone (reserve returns 503 there, rule R10)
    3    503, the outcome is not known yet, or the client may try again
    4    4xx, a definite refusal
    †    no response, because the process crashed

The second one is the end after recovery (`END_STATES` has the database rows of each end):

    D    done
    U    undone
    u    undone before an order or transfer existed
    E    ended before its first step, so a retry by the client can run the flow
    A    like E, and recovery has run it again: done
    V    like E, and recovery has run it again: undone
    N    no saga was begun

`spec_rows.py` maps each edge to its row of the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from tests.saga.in_process.faults import Kind

TABLE = {
    "reserve": """
        journal begin                               3N  3N  3N  3u  3N  3u  3u  3u  3N  3u  3u  †N  †u
        inventory ReserveSeat                       3u  3u  3u  3u  =D  =D  =D  =D  3u  3u  3u  †u  †u
        event GET /events/{id}                      3u  3u  3u  3u  =D  =D  =D  =D  3u  3u  3u  †u  †u
        user GET /users/{id}/risk                   3u  3u  3u  3u  =D  =D  =D  =D  3u  3u  3u  †u  †u
        order POST /orders                          3u  3u  3u  3U  =D  =D  =D  =D  3u  3U  3u  †u  †U
        broker publish                              3U  3U  3U  3U  =D  =D  =D  =D  3U  3U  3U  †U  †U
        journal end                                 3U  3U  3U  3D  3U  3D  3U  =D  3U  3D  3U  †U  †D
    """,
    "reserve flagged": """
        journal begin                               3N  3N  3N  3u  3N  3u  3u  3u  3N  3u  3u  †N  †u
        inventory ReserveSeat                       3u  3u  3u  3u  =D  =D  =D  =D  3u  3u  3u  †u  †u
        event GET /events/{id}                      3u  3u  3u  3u  =D  =D  =D  =D  3u  3u  3u  †u  †u
        user GET /users/{id}/risk                   3u  3u  3u  3u  =D  =D  =D  =D  3u  3u  3u  †u  †u
        order POST /orders                          3u  3u  3u  3U  =D  =D  =D  =D  3u  3U  3u  †u  †U
        broker publish                              3U  3U  3U  3U  =D  =D  =D  =D  3U  3U  3U  †U  †U
        user POST /otp/send                         3U  3U  3U  3U  =D  =D  =D  =D  3U  3U  3U  †U  †U
        order PATCH /orders/{id}                    3U  3U  3U  3U  =D  =D  =D  =D  3U  3U  3U  †U  †U
        journal end                                 3U  3U  3U  3D  3U  3D  3U  =D  3U  3D  3U  †U  †D
    """,
    "reserve again": """
        journal begin                               3N  3N  3N  3u  3N  3u  3u  3u  3N  3u  3u  †N  †u
        inventory ReserveSeat                       3u  3u  3u  3u  =D  =D  =D  =D  3u  3u  3u  †u  †u
        order GET /orders/{id}                      3u  3u  3u  3u  =D  =D  =D  =D  3u  3u  3u  †u  †u
        inventory ReserveSeat#2                     3u  3u  3u  3U  =D  =D  =D  =D  3u  3U  3u  †u  †U
        event GET /events/{id}                      3U  3U  3U  3U  =D  =D  =D  =D  3U  3U  3U  †U  †U
        user GET /users/{id}/risk                   3U  3U  3U  3U  =D  =D  =D  =D  3U  3U  3U  †U  †U
        order POST /orders                          3U  3U  3U  3U  =D  =D  =D  =D  3U  3U  3U  †U  †U
        broker publish                              3U  3U  3U  3U  =D  =D  =D  =D  3U  3U  3U  †U  †U
        journal end                                 3U  3U  3U  3D  3U  3D  3U  =D  3U  3D  3U  †U  †D
    """,
    "pay": """
        journal begin                               3N  3N  3N  3U  3N  3U  3U  3U  3N  3U  3U  †N  †U
        order GET /orders/{id}                      3E  3E  3E  3E  =D  =D  =D  =D  3E  3E  3E  †U  †U
        event GET /events/{id}                      3E  3E  3E  3E  =D  =D  =D  =D  3E  3E  3E  †U  †U
        user POST /credits/deduct                   5U  5U  5U  5U  =D  =D  =D  =D  5U  5U  5U  †U  †U
        order PATCH /orders/{id}                    3U  3U  3U  3U  =D  =D  =D  =D  5U  5U  5U  †U  †U
        inventory ConfirmSeat                       5U  5U  5U  3D  =D  =D  =D  =D  5U  =D  5U  †U  †D
        journal end                                 3D  3D  3D  3D  3D  3D  3D  =D  3D  3D  3D  †D  †D
    """,
    "pay reserved": """
        journal begin                               3N  3N  3N  3U  3N  3U  3U  3U  3N  3U  3U  †N  †U
        event GET /events/{id}                      3E  3E  3E  3E  =D  =D  =D  =D  3E  3E  3E  †U  †U
        user POST /credits/deduct                   5U  5U  5U  5U  =D  =D  =D  =D  5U  5U  5U  †U  †U
        order PATCH /orders/{id}                    3U  3U  3U  3U  =D  =D  =D  =D  5U  5U  5U  †U  †U
        inventory ConfirmSeat                       5U  5U  5U  3D  =D  =D  =D  =D  5U  =D  5U  †U  †D
        journal end                                 3D  3D  3D  3D  3D  3D  3D  =D  3D  3D  3D  †D  †D
    """,
    "verify-otp": """
        order GET /orders/{id}                      3N  3N  3N  3N  =D  =D  =D  =D  3N  3N  3N  †N  †N
        order POST /orders/{id}/otp-attempts        3N  3N  3N  3N  =D  =D  =D  =D  3N  3N  3N  †N  †N
        user POST /otp/verify                       3N  3N  3N  3N  =D  4N  =D  4N  3N  3N  3N  †N  †N
        order PATCH /orders/{id}/otp-attempts       3N  3N  3N  3N  =D  =D  =D  =D  =D  =D  =D  †N  †N
    """,
    "refund": """
        journal begin                               3N  3N  3N  3U  3N  3U  3U  3U  3N  3U  3U  †N  †U
        order GET /orders/{id}                      3U  3U  3U  3U  =D  =D  =D  =D  3U  3U  3U  †U  †U
        event GET /events/{id}                      3U  3U  3U  3U  =D  =D  =D  =D  3U  3U  3U  †U  †U
        order GET /transfers                        3U  3U  3U  3U  =D  =D  =D  =D  3U  3U  3U  †U  †U
        order GET /transfers#2                      3U  3U  3U  3U  =D  =D  =D  =D  3U  3U  3U  †U  †U
        order GET /transfers#3                      3U  3U  3U  3U  =D  =D  =D  =D  3U  3U  3U  †U  †U
        inventory CancelSale                        5U  5U  5U  3D  =D  =D  =D  =D  5U  =D  5U  †U  †D
        user POST /credits/refund                   3D  3D  3D  3D  =D  =D  =D  =D  =D  =D  =D  †D  †D
        order PATCH /orders/{id}                    3D  3D  3D  3D  =D  =D  =D  =D  =D  =D  =D  †D  †D
        journal end                                 3D  3D  3D  3D  3D  3D  3D  =D  3D  3D  3D  †D  †D
    """,
    "initiate": """
        journal begin                               3N  3N  3N  3u  3N  3u  3u  3u  3N  3u  3u  †N  †u
        inventory GetSeatOwner                      3u  3u  3u  3u  =D  =D  =D  =D  3u  3u  3u  †u  †u
        event GET /events/{id}                      3u  3u  3u  3u  =D  =D  =D  =D  3u  3u  3u  †u  †u
        user POST /credits/check                    5u  5u  5u  5u  =D  =D  =D  =D  5u  5u  5u  †u  †u
        order POST /transfers                       5u  5u  5u  5U  =D  =D  =D  =D  5u  5U  5u  †u  †U
        user POST /otp/send                         5U  5U  5U  5U  =D  =D  =D  =D  5U  5U  5U  †U  †U
        user POST /otp/send#2                       5U  5U  5U  5U  =D  =D  =D  =D  5U  5U  5U  †U  †U
        order PATCH /transfers/{id}                 3U  3U  3U  3U  =D  =D  =D  =D  5U  5U  5U  †U  †U
        journal end                                 3U  3U  3U  3D  3U  3D  3U  =D  3U  3D  3U  †U  †D
    """,
    "confirm": """
        order GET /transfers/{id}                   3N  3N  3N  3N  =D  =D  =D  =D  3N  3N  3N  †N  †N
        order POST /transfers/{id}/otp-attempts     3N  3N  3N  3N  =D  =D  =D  =D  3N  3N  3N  †N  †N
        user POST /otp/verify                       3N  3N  3N  3N  =D  4N  =D  4N  3N  3N  3N  †N  †N
        order PATCH /transfers/{id}/otp-attempts    3N  3N  3N  3N  =D  =D  =D  =D  =D  =D  =D  †N  †N
        order POST /transfers/{id}/otp-attempts#2   3N  3N  3N  3N  =D  =D  =D  =D  3N  3N  3N  †N  †N
        user POST /otp/verify#2                     3N  3N  3N  3N  =D  4N  =D  4N  3N  3N  3N  †N  †N
        order PATCH /transfers/{id}/otp-attempts#2  3N  3N  3N  3D  =D  =D  =D  =D  =D  =D  =D  †N  †D
        journal begin                               3D  3D  3D  3U  3D  3U  3D  3U  3D  3U  3D  †D  †U
        order GET /transfers/{id}#2                 3A  3A  3A  3A  =D  =D  =D  =D  3A  3A  3A  †U  †U
        order GET /orders/{id}                      3A  3A  3A  3A  =D  =D  =D  =D  3A  3A  3A  †U  †U
        event GET /events/{id}                      3A  3A  3A  3A  =D  =D  =D  =D  3A  3A  3A  †U  †U
        user POST /credits/freeze                   5U  5U  5U  5U  =D  =D  =D  =D  5U  5U  5U  †U  †U
        inventory UpdateOwner                       5U  5U  5U  3D  =D  =D  =D  =D  5U  =D  5U  †U  †D
        user POST /credits/transfer                 3D  3D  3D  3D  =D  =D  =D  =D  =D  =D  =D  †D  †D
        order PATCH /transfers/{id}                 3D  3D  3D  3D  =D  =D  =D  =D  =D  =D  =D  †D  †D
        journal end                                 3D  3D  3D  3D  3D  3D  3D  =D  3D  3D  3D  †D  †D
    """,
    "dispute": """
        order GET /transfers/{id}                   3N  3N  3N  3N  =D  =D  =D  =D  3N  3N  3N  †N  †N
        journal begin                               3N  3N  3N  3D  3N  3D  3D  3D  3N  3D  3D  †N  †D
        order GET /transfers/{id}#2                 3E  3E  3E  3E  =D  =D  =D  =D  3E  3E  3E  †D  †D
        order GET /orders/{id}                      3E  3E  3E  3E  =D  =D  =D  =D  3E  3E  3E  †D  †D
        event GET /events/{id}                      3E  3E  3E  3E  =D  =D  =D  =D  3E  3E  3E  †D  †D
        inventory GetSeatOwner                      3E  3E  3E  3E  =D  =D  =D  =D  3E  3E  3E  †D  †D
        order POST /transfers/{id}/dispute          3D  3D  3D  3D  =D  =D  =D  =D  =D  =D  =D  †D  †D
        user POST /credits/freeze                   3D  3D  3D  3D  =D  =D  =D  =D  =D  =D  =D  †D  †D
        order PATCH /transfers/{id}                 3D  3D  3D  3D  =D  =D  =D  =D  =D  =D  =D  †D  †D
        journal end                                 3D  3D  3D  3D  3D  3D  3D  =D  3D  3D  3D  †D  †D
    """,
    "reverse": """
        order GET /transfers/{id}                   3N  3N  3N  3N  =D  =D  =D  =D  3N  3N  3N  †N  †N
        journal begin                               3N  3N  3N  3U  3N  3U  3U  3U  3N  3U  3U  †N  †U
        order GET /transfers/{id}#2                 3U  3U  3U  3U  =D  =D  =D  =D  3U  3U  3U  †U  †U
        order GET /orders/{id}                      3U  3U  3U  3U  =D  =D  =D  =D  3U  3U  3U  †U  †U
        event GET /events/{id}                      3U  3U  3U  3U  =D  =D  =D  =D  3U  3U  3U  †U  †U
        inventory UpdateOwner                       5U  5U  5U  3D  =D  =D  =D  =D  5U  =D  5U  †U  †D
        user POST /credits/transfer                 3D  3D  3D  3D  =D  =D  =D  =D  =D  =D  =D  †D  †D
        order PATCH /transfers/{id}                 3D  3D  3D  3D  =D  =D  =D  =D  =D  =D  =D  †D  †D
        journal end                                 3D  3D  3D  3D  3D  3D  3D  =D  3D  3D  3D  †D  †D
    """,
    "dismiss": """
        order GET /transfers/{id}                   3N  3N  3N  3N  =D  =D  =D  =D  3N  3N  3N  †N  †N
        journal begin                               3N  3N  3N  3D  3N  3D  3D  3D  3N  3D  3D  †N  †D
        order GET /transfers/{id}#2                 3E  3E  3E  3E  =D  =D  =D  =D  3E  3E  3E  †D  †D
        order GET /orders/{id}                      3E  3E  3E  3E  =D  =D  =D  =D  3E  3E  3E  †D  †D
        event GET /events/{id}                      3E  3E  3E  3E  =D  =D  =D  =D  3E  3E  3E  †D  †D
        order PATCH /transfers/{id}                 3D  3D  3D  3D  =D  =D  =D  =D  =D  =D  =D  †D  †D
        user POST /credits/unfreeze                 3D  3D  3D  3D  =D  =D  =D  =D  =D  =D  =D  †D  †D
        journal end                                 3D  3D  3D  3D  3D  3D  3D  =D  3D  3D  3D  †D  †D
    """,
    "verify": """
        order GET /orders                           3N  3N  3N  3N  =D  =D  =D  =D  3N  3N  3N  †N  †N
        inventory VerifyTicket                      3N  3N  3N  3N  =D  =D  =D  =D  3N  3N  3N  †N  †N
        event GET /events/{id}                      3N  3N  3N  3N  =D  =D  =D  =D  3N  3N  3N  †N  †N
        inventory MarkCheckedIn                     3N  3N  3N  3D  =D  =D  =D  =D  3N  3D  3D  †N  †D
    """,
}

BUYER = {"buyer": (Decimal(1000), Decimal(0))}
PAID = {"buyer": (Decimal(800), Decimal(0))}
PARTIES = {"seller": (Decimal(800), Decimal(0)), "buyer": (Decimal(1000), Decimal(0)), "owner": "seller"}
HANDED_OVER = {"seller": (Decimal(950), Decimal(0)), "buyer": (Decimal(850), Decimal(0)), "owner": "buyer"}
FROZEN = HANDED_OVER | {"seller": (Decimal(800), Decimal(150))}
SOLD = {"seat": "SOLD", "order": "CONFIRMED"}

_RESERVE = {
    "D": {"seat": "HELD", "order": "PENDING", "owner": None, **BUYER},
    "U": {"seat": "AVAILABLE", "order": "FAILED", "owner": None, **BUYER},
    "u": {"seat": "AVAILABLE", "order": None, "owner": None, **BUYER},
    "N": {"seat": "AVAILABLE", "order": None, "owner": None, **BUYER},
}

_PAY: Mapping[str, Mapping[str, Any]] = {
    "D": {**SOLD, "owner": "buyer", **PAID},
    "U": {"seat": "HELD", "order": "FAILED", "owner": None, **BUYER},
    "N": {"seat": "HELD", "order": "PENDING", "owner": None, **BUYER},
    "E": {"seat": "HELD", "order": "PENDING", "owner": None, **BUYER},
}

END_STATES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "reserve": _RESERVE,
    "reserve flagged": _RESERVE,
    "reserve again": {  # before the replacement, the hold of the failed order stays
        "D": {"seat": "HELD", "order": "PENDING", "owner": None, **BUYER},
        "U": {"seat": "AVAILABLE", "order": "FAILED", "owner": None, **BUYER},
        "u": {"seat": "HELD", "order": "FAILED", "owner": None, **BUYER},
        "N": {"seat": "HELD", "order": "FAILED", "owner": None, **BUYER},
    },
    "pay": _PAY,
    "pay reserved": _PAY,
    "verify-otp": {
        "D": {"seat": "HELD", "order": "PENDING", **BUYER},
        "N": {"seat": "HELD", "order": "PENDING", **BUYER},
    },
    "refund": {
        "D": {"seat": "AVAILABLE", "order": "REFUNDED", "owner": None, **BUYER},
        "N": {**SOLD, "owner": "buyer", **PAID},
        "U": {**SOLD, "owner": "buyer", **PAID},
    },
    "initiate": {
        "D": {**SOLD, "transfer": "PENDING_OTP", **PARTIES},
        "U": {**SOLD, "transfer": "FAILED", **PARTIES},
        "u": {**SOLD, "transfer": None, **PARTIES},
        "N": {**SOLD, "transfer": None, **PARTIES},
    },
    "confirm": {
        "D": {**SOLD, "transfer": "COMPLETED", **HANDED_OVER},
        "A": {**SOLD, "transfer": "COMPLETED", **HANDED_OVER},
        "V": {**SOLD, "transfer": "FAILED", **PARTIES},
        "U": {**SOLD, "transfer": "FAILED", **PARTIES},
        "N": {**SOLD, "transfer": "PENDING_OTP", **PARTIES},
    },
    "dispute": {
        "D": {**SOLD, "transfer": "DISPUTED", **FROZEN},
        "N": {**SOLD, "transfer": "COMPLETED", **HANDED_OVER},
        "E": {**SOLD, "transfer": "COMPLETED", **HANDED_OVER},
    },
    "reverse": {
        "D": {**SOLD, "transfer": "REVERSED", **PARTIES},
        "U": {**SOLD, "transfer": "DISPUTED", **FROZEN},
        "N": {**SOLD, "transfer": "DISPUTED", **FROZEN},
    },
    "dismiss": {
        "D": {**SOLD, "transfer": "COMPLETED", **HANDED_OVER},
        "N": {**SOLD, "transfer": "DISPUTED", **FROZEN},
        "E": {**SOLD, "transfer": "DISPUTED", **FROZEN},
    },
    "verify": {
        "D": {"seat": "CHECKED_IN", "order": "CONFIRMED", "owner": "buyer", **PAID},
        "N": {**SOLD, "owner": "buyer", **PAID},
    },
}

SAGA_OF_FLOW = {
    "reserve flagged": "reserve",
    "reserve again": "reserve",
    "pay reserved": "pay",
    "confirm": "transfer_confirm",
    "verify-otp": None,
    "verify": None,
}
PREPARED = {"pay reserved": ["reserve DONE"]}  # the other flows insert the rows from which they start
JOURNAL_STATUS = {"D": "DONE", "U": "UNDONE", "u": "UNDONE", "E": "UNDONE"}
RETRIED = {
    "A": "DONE",
    "V": "UNDONE",
}  # status of the last attempt, after one or more attempts that ended before their first step


def is_journal_of(flow: str, end: str, sagas: Sequence[str]) -> bool:
    """Whether `sagas`, oldest first, are the journal rows of this end."""
    saga, prepared = SAGA_OF_FLOW.get(flow, flow), PREPARED.get(flow, [])
    if list(sagas[: len(prepared)]) != prepared:
        return False
    sagas = sagas[len(prepared) :]
    if end in RETRIED:
        *before, last = sagas or ("",)
        return set(before) == {f"{saga} UNDONE"} and last == f"{saga} {RETRIED[end]}"
    return list(sagas) == ([f"{saga} {JOURNAL_STATUS[end]}"] if saga and end in JOURNAL_STATUS else [])


def read_table() -> dict[tuple[str, str, Kind], str]:
    """Return every cell of the table by (flow, edge, kind)."""
    cells = {}
    for flow, block in TABLE.items():
        for line in block.strip().splitlines():
            *edge, codes = line.strip().rsplit(None, len(Kind))[0], line.split()[-len(Kind) :]
            for kind, code in zip(Kind, codes, strict=True):
                cells[flow, edge[0], kind] = code
    return cells
