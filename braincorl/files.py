"""Files that land whole or not at all.

A file is written beside its destination under a temporary name, flushed to the disk, and renamed over the destination
in one step. A run that fails or is killed leaves the destination as it was.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from braincorl.errors import InputError, OutputError

try:
    import fcntl
except ImportError:  # not on Windows, where two runs into one file are not noticed
    fcntl = None  # type: ignore[assignment]

GENERATOR = "braincorl"


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Write a file aside, then move it to `path`.

    Parameters
    ----------
    path
        Destination. Its folder must exist.

    Yields
    ------
    Path
        A temporary path in the same folder, with the same suffixes, to write to.

    Raises
    ------
    OutputError
        If the file cannot be written (no such folder, no permission, disk full); `path` is then untouched.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=".partial-", suffix="-" + path.name, dir=path.parent)
    except OSError as error:
        raise output_error(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        flush_to_disk(temporary)
        temporary.chmod(0o666 & ~umask())  # mkstemp makes private files; results get the user's usual mode
        temporary.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_new_file(path: Path, overwrite: bool) -> None:
    """Refuse a file that must not be replaced, before any work is done.

    Parameters
    ----------
    path
        File to be written.
    overwrite
        Whether it may be replaced.

    Raises
    ------
    OutputError
        If it exists and may not, is a folder or a link to nothing, or its folder does not exist.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder, but a file is to be written: choose another name.")
    if path.is_symlink() and not path.exists():
        raise OutputError(f"{path} is a link to nothing: choose another name.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists: choose another name, or pass --overwrite.")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"{path.parent} does not exist: make that folder first.")


def write_json(path: str | Path, content: dict[str, Any]) -> None:
    """Write a dictionary as indented JSON, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(json_text(content, indent=2) + "\n", encoding="utf-8")


def json_text(content: Mapping[str, Any], **options: Any) -> str:
    """JSON that stays readable in any script; half characters, as in names that are no UTF-8, are escaped."""
    return json.dumps(content, ensure_ascii=False, **options).encode(errors="backslashreplace").decode()


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    InputError
        If the file is missing or does not hold a JSON object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object, but holds a {type(content).__name__}.")
    return content


def lock_file(file: BinaryIO, path: Path) -> None:
    """Take a file for this process alone, until it is closed.

    Raises
    ------
    OutputError
        If another process has it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise OutputError(f"{path} is being written by another run: wait for it, or stop it.") from error


def check_free_space(folder: Path, needed: int) -> None:
    """Refuse work that the disk has no room for.

    Parameters
    ----------
    folder
        Where the files will be; it need not exist yet.
    needed
        Bytes.

    Raises
    ------
    OutputError
        Saying how much is free and how much is needed.
    """
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise OutputError(f"{folder} has {free / 1e9:.1f} GB free, but {needed / 1e9:.1f} GB are needed.")


def flush_to_disk(path: Path) -> None:
    """Wait until the disk has a file's content."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def umask() -> int:
    """Permissions that the user's new files lack."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def output_error(path: Path, error: OSError) -> OutputError:
    """Say that a result was not written, and why."""
    if isinstance(error, OutputError):
        return error
    return OutputError(f"{path} was not written: {error.strerror or error}. Nothing was changed there.")


Progress = Callable[[int, int], None]
"""Called with (done, total) as work goes on."""


class ProgressCounter:
    """Work done so far, told to whoever wants to know.

    Parameters
    ----------
    total
        Work in all.
    progress
        Called with (done, total) after every piece; None to tell nobody.
    """

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, n: int) -> None:
        """Count a piece of work."""
        self._done += n
        if self._progress is not None:
            self._progress(self._done, self._total)
