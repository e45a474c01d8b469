"""Shows what the cluster's tests measured, also when they pass."""

from __future__ import annotations

import pytest

MEASURED = "measured"  # the property of a test's report with a line of text


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures above pytest's own summary."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = [text for report in reports for name, text in report.user_properties if name == MEASURED]
    if lines:
        terminalreporter.section("cluster: seconds without a sale, and memory")
        for line in lines:
            terminalreporter.write_line(line)
