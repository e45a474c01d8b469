"""Start the orchestrator: `python -m services.orchestrator.main`."""

from __future__ import annotations

from services.chassis.serve import serve
from services.chassis.settings import read_or_exit
from services.orchestrator.app import build
from services.orchestrator.settings import Settings


def main() -> None:
    """Serve until SIGTERM."""
    settings = read_or_exit(Settings.read)
    serve(settings.process, lambda: build(settings))


if __name__ == "__main__":
    main()
