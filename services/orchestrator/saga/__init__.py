"""The sagas: definition, steps, runner, journal, recovery and outbox."""
