"""The public routes of the orchestrator, and what they share: identity, request context, idempotency keys."""
