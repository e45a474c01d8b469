"""`make proto`: generate services/contracts/pb from proto/. A test holds what is committed against it."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

from harness.runtime.compose import ROOT

PACKAGE = "services.contracts.pb"


def generate(out: Path) -> int:
    """Write messages, stubs and types to `out` and return the exit status of protoc."""
    known = Path(grpc_tools.__file__).parent / "_proto"  # google's own, such as timestamp.proto
    kinds = (f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python"))
    arguments = [f"-I{ROOT / 'proto'}", f"-I{known}", *kinds]
    status: int = protoc.main(["protoc", *arguments, *map(str, (ROOT / "proto").glob("*.proto"))])
    for stub in out.glob("*_pb2_grpc.py"):  # protoc imports its messages as if they lay at the top
        stub.write_text(
            stub.read_text().replace("\nimport inventory_pb2 as", f"\nfrom {PACKAGE} import inventory_pb2 as")
        )
    return status


if __name__ == "__main__":
    sys.exit(generate(ROOT / PACKAGE.replace(".", "/")))
