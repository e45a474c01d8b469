"""The Prometheus metrics of Inventory."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

HOLDS = Counter("inventory_holds_total", "Seats held")
TAKEOVERS = Counter("inventory_takeovers_total", "Holds that replaced an expired hold")
NOWAIT_LOSSES = Counter("inventory_nowait_losses_total", "Reserves that lost because the seat's row was locked")
RELEASES = Counter("inventory_releases_total", "Holds removed from a seat", ["path"])  # call, message, sweeper
SALES = Counter("inventory_sales_total", "Holds turned into sales")
SCANS = Counter("inventory_scans_total", "Entries logged", ["result"])
PARKED = Counter("inventory_parked_total", "Wake-up messages parked", ["reason"])  # malformed, attempts
DELAYED = Counter("inventory_delayed_total", "Wake-up messages delayed", ["reason"])  # early, failed
PARKED_NOW = Gauge("inventory_parked_messages", "Messages in the parking queue")
