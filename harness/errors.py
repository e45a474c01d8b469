"""The harness's only error. The terminal prints its message, which states the problem and what to do next."""


class StackError(Exception):
    """A command cannot start, find or change the stack."""
