"""Proof that the system behaves like a small model under random actions, crashes, lost replies and expired holds.

model.py                   the model, as plain data and functions. Start here.
state_machine.py           the Hypothesis state machine: its rules run each action in the system and in the model
state_comparison.py        compares the model with the databases
test_saga_properties.py    runs the machine in several processes, and prints how to repeat a failure
"""
