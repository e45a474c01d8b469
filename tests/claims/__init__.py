"""The claims of the reference, the tests that carry them, and the record of a run."""
