"""Sagas: their definition, their steps, the runner, the journal, recovery and the outbox."""
