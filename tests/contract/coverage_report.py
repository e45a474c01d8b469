"""Write reports/contract.json: how much of each spec the contract suite reached. The HTML report shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.runtime.compose import ROOT
from tests.contract.exchanges import AnswerId, Contract, Exchange

REPORT = ROOT / "reports" / "contract.json"


def find_reached(exchanges: Sequence[Exchange], contracts: Mapping[str, Contract]) -> dict[str, set[AnswerId]]:
    """Find the documented answers that each server gave. A path that the gateway shares counts for both."""
    own = {
        server: {contract.identify(e) for e in exchanges if e.server == server}
        for server, contract in contracts.items()
    }
    return {server: contract.documented & (own[server] | own["gateway"]) for server, contract in contracts.items()}


def write_report(exchanges: Sequence[Exchange], contracts: Mapping[str, Contract], path: Path = REPORT) -> None:
    """Write the counts of operations, documented answers and exchanges for each server."""
    answers = find_reached(exchanges, contracts)
    servers = {
        server: {
            "operations": len(_list_operations(contract.documented)),
            "operations_reached": len(_list_operations(answers[server])),
            "answers": len(contract.documented),
            "answers_reached": len(answers[server]),
            "exchanges": sum(e.server == server for e in exchanges),
        }
        for server, contract in contracts.items()
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"servers": servers}, indent=1) + "\n")


def _list_operations(answers: set[AnswerId]) -> set[tuple[str, str]]:
    return {(method, path) for method, path, _ in answers}
