"""What the conversation reached of each spec: reports/contract.json, for the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.runtime.compose import ROOT
from tests.contract.exchanges import Contract, Exchange, Reached

REPORT = ROOT / "reports" / "contract.json"


def reached(said: Sequence[Exchange], contracts: Mapping[str, Contract]) -> dict[str, set[Reached]]:
    """The documented answers that each server gave; at shared paths the gateway's answers count for the others too."""
    own = {server: {contract.reached(e) for e in said if e.server == server} for server, contract in contracts.items()}
    return {server: contract.documented & (own[server] | own["gateway"]) for server, contract in contracts.items()}


def write(said: Sequence[Exchange], contracts: Mapping[str, Contract], path: Path = REPORT) -> None:
    """Server by server: operations and documented answers, how many of each were reached, in how many exchanges."""
    answers = reached(said, contracts)
    servers = {
        server: {
            "operations": len(_operations(contract.documented)),
            "operations_reached": len(_operations(answers[server])),
            "answers": len(contract.documented),
            "answers_reached": len(answers[server]),
            "exchanges": sum(e.server == server for e in said),
        }
        for server, contract in contracts.items()
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"servers": servers}, indent=1) + "\n")


def _operations(answers: set[Reached]) -> set[tuple[str, str]]:
    return {(method, path) for method, path, _ in answers}
