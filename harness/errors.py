"""The harness's one error: what went wrong and what to do about it, in words for the person at the terminal."""


class StackError(Exception):
    """The stack cannot be brought up, found or changed as asked."""
