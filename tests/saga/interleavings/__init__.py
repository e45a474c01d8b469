"""Proof that named races end in an allowed state. Each test fixes the order of the calls, so timing plays no part.

test_race_conditions_purchase.py     reserve, pay, one-time passwords, refund. Start here.
test_race_conditions_transfers.py    transfers, disputes and scans
test_race_conditions_recovery.py     adoption, leases and the journal

Each module begins with a list of its races.
"""
