"""`python -m services.user.main`: the User service."""

from __future__ import annotations

from services.chassis.serve import serve
from services.chassis.settings import read_or_exit
from services.user.app import build
from services.user.settings import Settings


def main() -> None:
    """Serve until SIGTERM."""
    settings = read_or_exit(Settings.read)
    serve(settings.process, lambda: build(settings))


if __name__ == "__main__":
    main()
