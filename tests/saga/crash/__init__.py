"""Proof that a SIGKILL of a real orchestrator at any step leaves no saga unfinished.

test_sigkill.py             one test for each crash point, crashes during recovery, fifty orphaned sagas. Start here.
test_stop_and_notices.py    a clean stop, notices and hold messages
test_sigkill_controls.py    negative controls
crash_points.py             every crash point, discovered from the sagas, and the end that recovery must reach
crash_scenarios.py          the preparation, the request and the end states of each flow
actors.py                   the users, seat, order and transfer of one test
crash_batches.py            arms, kills and verifies the processes of a batch together
crash_system.py             the running stack of these tests
killable_orchestrator.py    the real orchestrator that kills itself at a crash point
fork_server.py              forks such orchestrators within milliseconds
"""
