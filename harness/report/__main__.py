"""`make report`: write the page again from the files of the last run."""

from __future__ import annotations

from harness.command_line import run_main
from harness.report import page

if __name__ == "__main__":
    run_main(lambda: print(f"report: {page.write()}"))
