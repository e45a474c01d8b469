"""Proof that no fault, race or crash leaves a saga half done. It has five parts:

matrix           every flow × edge × fault ends as declared in `expected_outcomes.py`
interleavings    pairs of flows under every schedule with few preemptions, and named races
properties       random actions with random faults behave like a small model
crash            a real orchestrator dies by SIGKILL at every step and every undo, and another one recovers
in_process       the system in one process, on which the first three parts run, and one test for each guard

Start with `interleavings/test_race_conditions_purchase.py`, which has the shortest tests.
"""
