"""Proof that each fault in each call of each flow has the declared outcome, alone and in pairs.

expected_outcomes.py    the table: the expected outcome of every cell, with its legend. Start here.
test_matrix.py          one test for each cell, and one for the pairs that begin with it
verify_outcome.py       the check of one execution, and the expected outcome of a pair
cell_runner.py          runs cells in worker processes
spec_rows.py            the row of the reference for each edge
json_report.py          writes reports/saga.json and, with html_report.py, reports/saga.html
"""
