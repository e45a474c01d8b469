"""The expected outcome of every cell: the client's answer and the end state, for every fault at every edge.

A row is an edge, in the order in which the flow reaches it. A column is a kind of fault, in the order of `Kind`:

    down    no connection, for all tries           late   arrives late, after the retry
    5xx     an error, for all tries                twice  delivered twice
    silent  no effect, no response, for all tries  gave up…  the same faults once each, and the time is over
    mute    effect done, no response ever          dies < >  the process dies before sending, after the effect
    blink   no connection, once                    lost   effect done, response lost, then a retry

A cell is two characters.

The client's answer:  = success · 5 fully compensated, 500 (reserve: 503, rule R10) · 3 503, not known yet or try again
· 4 a definite refusal · † nothing, the process died.

The end after recovery:  D done · U undone · u undone before an order or transfer existed · E ended before its first
step, so that a retry can run it · A like E, and recovery ran it again · V like A, and undone at last · N nothing begun.
`ENDS` gives the state of each end. `spec_rows.py` gives the row of the reference for each edge.
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
    "pay": """
        journal begin                               3N  3N  3N  3U  3N  3U  3U  3U  3N  3U  3U  †N  †U
        order GET /orders/{id}                      3E  3E  3E  3E  =D  =D  =D  =D  3E  3E  3E  †U  †U
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
        user GET /users/{id}                        3u  3u  3u  3u  =D  =D  =D  =D  3u  3u  3u  †u  †u
        event GET /events/{id}                      3u  3u  3u  3u  =D  =D  =D  =D  3u  3u  3u  †u  †u
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

ENDS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "reserve": _RESERVE,
    "reserve flagged": _RESERVE,
    "pay": {
        "D": {**SOLD, "owner": "buyer", **PAID},
        "U": {"seat": "HELD", "order": "FAILED", "owner": None, **BUYER},
        "N": {"seat": "HELD", "order": "PENDING", "owner": None, **BUYER},
        "E": {"seat": "HELD", "order": "PENDING", "owner": None, **BUYER},
    },
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

JOURNALLED = {"reserve flagged": "reserve", "confirm": "transfer_confirm", "verify-otp": None, "verify": None}
STATUS = {"D": "DONE", "U": "UNDONE", "u": "UNDONE", "E": "UNDONE"}
TAKEN_UP_AGAIN = {"A": "DONE", "V": "UNDONE"}  # after one attempt or more that ended before their first step


def is_journal_of(flow: str, end: str, sagas: Sequence[str]) -> bool:
    """Is this what the journal has gained by then, oldest first?"""
    saga = JOURNALLED.get(flow, flow)
    if end in TAKEN_UP_AGAIN:
        *before, last = sagas or ("",)
        return set(before) == {f"{saga} UNDONE"} and last == f"{saga} {TAKEN_UP_AGAIN[end]}"
    return list(sagas) == ([f"{saga} {STATUS[end]}"] if saga and end in STATUS else [])


def declared() -> dict[tuple[str, str, Kind], str]:
    """Every cell of the table by (flow, edge, kind)."""
    cells = {}
    for flow, block in TABLE.items():
        for line in block.strip().splitlines():
            *edge, codes = line.strip().rsplit(None, len(Kind))[0], line.split()[-len(Kind) :]
            for kind, code in zip(Kind, codes, strict=True):
                cells[flow, edge[0], kind] = code
    return cells
