"""Code that several suites share. `tests/README.md` lists the modules."""
