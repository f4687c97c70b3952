"""The errors that users see.

Each message is one line that names the argument, what was expected, what came, and what to do. The command line
prints that line and exits with status 2; anything that is not a `BraincorlError` is a bug and keeps its traceback.
"""


class BraincorlError(Exception):
    """Base of every error that `braincorl` raises on purpose."""


class InputError(BraincorlError, ValueError):
    """An argument, a file, or a combination of them cannot be used as given."""


class FileFormatError(InputError):
    """A file is damaged, truncated, altered, or of another kind than its reader expects."""


class OutputError(BraincorlError, OSError):
    """A result could not be written; whatever stood there before is still there."""


class OutOfMemoryError(BraincorlError, MemoryError):
    """The smallest possible batch does not fit into memory."""
