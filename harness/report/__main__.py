"""`make report`: draw the page again from what the last run left."""

from __future__ import annotations

from harness.report import page

if __name__ == "__main__":
    print(f"report: {page.write()}")
