"""`make report`: write the page again from the files of the last run."""

from __future__ import annotations

from harness.report import page

if __name__ == "__main__":
    print(f"report: {page.write()}")
