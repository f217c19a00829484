"""The two errors that end a command plainly. Every room raises them, also where pydantic is not."""


class InputError(ValueError):
    """Input of the user is wrong. The message names where, and what was expected."""


class StoppedRun(RuntimeError):
    """A run could not continue. The message says why, where to look and what was kept."""
