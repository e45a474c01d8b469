"""What the reference claims, which tests prove it, and what came of them in this run."""
