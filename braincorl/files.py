"""Files that land whole or not at all.

Results are written beside their destination under a temporary name, flushed to the disk, and renamed over the
destination in one step. A run that fails or is killed leaves the destination as it was.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from braincorl.errors import InputError, OutputError

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
        raise _output_error(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush_to_disk(temporary)
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files; results get the user's usual mode
        temporary.replace(path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staged_directory(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Fill a folder aside, then move it to `path`.

    Parameters
    ----------
    path
        Destination folder. It must not exist, or be empty, or (with `overwrite`) be an earlier result of braincorl.
    overwrite
        Replace an earlier result. A folder that braincorl did not write is never replaced.

    Yields
    ------
    Path
        An empty folder beside `path` to fill.

    Raises
    ------
    OutputError
        If `path` is taken or cannot be written; nothing has changed then.
    """
    path = Path(path).absolute()
    check_destination(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    except OSError as error:
        raise _output_error(path, error) from error
    try:
        yield staging
        for file in staging.rglob("*"):
            if file.is_file():
                _flush_to_disk(file)
        staging.chmod(0o777 & ~_umask())
        _swap_in(staging, path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_destination(path: str | Path, *, overwrite: bool = False) -> None:
    """Refuse a destination folder that must not be replaced, before any work is done.

    Parameters
    ----------
    path
        Folder to be written.
    overwrite
        Whether an earlier result of braincorl may be replaced.

    Raises
    ------
    OutputError
        If `path` is a file, a folder with other content, or cannot be written to.
    """
    path = Path(path).absolute()
    if path.is_symlink() and not path.exists():
        raise OutputError(f"{path} is a link to nothing: choose another output folder.")
    if path.exists():
        if not path.is_dir():
            raise OutputError(f"{path} is a file, but a folder is to be written: choose another name.")
        if any(path.iterdir()):
            _refuse_unless_replaceable(path, overwrite)
    ancestor = next(parent for parent in path.parents if parent.exists())
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise OutputError(f"{ancestor} is not writable: choose an output folder elsewhere or change its permissions.")


def write_json(path: str | Path, content: dict[str, Any]) -> None:
    """Write a dictionary as indented JSON, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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


def is_own_result(path: str | Path) -> bool:
    """Whether a folder was written by braincorl, by its `dataset_description.json`."""
    try:
        generators = read_json(Path(path) / "dataset_description.json").get("GeneratedBy", [])
    except InputError:
        return False
    return isinstance(generators, list) and any(isinstance(g, dict) and g.get("Name") == GENERATOR for g in generators)


def _refuse_unless_replaceable(path: Path, overwrite: bool) -> None:
    if not is_own_result(path):
        raise OutputError(f"{path} holds files that braincorl did not write: choose a new or empty output folder.")
    if not overwrite:
        raise OutputError(f"{path} holds an earlier result: choose another output folder, or pass --overwrite.")


def _swap_in(staging: Path, path: Path) -> None:
    """Rename `staging` to `path`, keeping what stood there until the new folder is in place."""
    target = path.resolve()  # through a link, so that the link itself stays
    if not target.exists():
        staging.rename(target)
        return
    previous = Path(tempfile.mkdtemp(prefix=f".{target.name}.previous-", dir=target.parent)) / target.name
    target.rename(previous)
    try:
        staging.rename(target)
    except OSError:
        previous.rename(target)
        raise
    finally:
        shutil.rmtree(previous.parent, ignore_errors=True)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _output_error(path: Path, error: OSError) -> OutputError:
    if isinstance(error, OutputError):
        return error
    return OutputError(f"{path} was not written: {error.strerror or error}. Nothing was changed there.")


Progress = Callable[[int, int], None]
"""Called with (done, total) as work goes on."""
