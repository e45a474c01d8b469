"""Installs the npm packages of specs/postman."""

from __future__ import annotations

from harness.runtime import node_packages
from harness.runtime.compose import ROOT

FOLDER = ROOT / "specs" / "postman"
PACKAGES = FOLDER / "node_modules"


def install() -> str:
    """Install the packages on first use and after a change of package-lock.json. Returns the path of Node."""
    node_packages.install(FOLDER)
    node, _ = node_packages.find_node()
    return node
