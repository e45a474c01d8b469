"""The public API behind the gateway, one module a scenario of the reference (§5, §6, §7) and one for accounts."""
