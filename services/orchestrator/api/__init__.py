"""The public routes of the orchestrator, with their shared context and idempotency keys."""
