"""Proof that races end in an allowed state. Timing plays no part.

An explorer runs pairs of flows under every schedule with few preemptions:

test_schedules.py                    explores all pairs, and replays one schedule (--schedule). Start here.
pairs.py                             the actors, the situations and the pairs
scheduler.py                         lets one actor run at a time, and stops it before each access to shared state
explorer.py                          generates schedules, and shrinks one that fails
pair_runner.py                       runs a pair under a schedule, and reads answers and end state
oracle.py                            compares with the serial orders, and declares the exceptions
local_inventory.py                   calls Inventory in process, and records the history of each seat
exploring.py                         explores in worker processes, in several modes
results_file.py                      writes reports/interleavings.json
__main__.py                          `make interleavings`
controls.py                          planted races that the explorer must find
test_explorer.py                     proves that the reduction loses no outcome

Races that were written down by hand, with the order of the calls. Each module begins with a list of them:

test_race_conditions_purchase.py     reserve, pay, one-time passwords, refund
test_race_conditions_transfers.py    transfers, disputes and scans
test_race_conditions_recovery.py     adoption, leases and the journal
"""
