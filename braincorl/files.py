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
from typing import Any, BinaryIO

from braincorl.errors import InputError, OutputError

try:
    import fcntl
except ImportError:  # not on Windows, where two runs into one file are not noticed
    fcntl = None  # type: ignore[assignment]

GENERATOR = "braincorl"
MANIFEST = ".braincorl.json"


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
        flush_to_disk(temporary)
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files; results get the user's usual mode
        temporary.replace(path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staged_directory(path: str | Path, *, overwrite: bool = False, kind: str = "result") -> Iterator[Path]:
    """Fill a folder aside, then move it to `path`, with a manifest of what was written.

    Parameters
    ----------
    path
        Destination folder. It must not exist, or be empty, or (with `overwrite`) be an earlier result of this kind.
    overwrite
        Replace an earlier result, if it holds nothing but what its manifest lists.
    kind
        What the folder holds, as in "fit"; a result of another kind is never replaced.

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
    check_destination(path, overwrite=overwrite, kind=kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    except OSError as error:
        raise _output_error(path, error) from error
    try:
        yield staging
        files = sorted(str(file.relative_to(staging)) for file in staging.rglob("*") if file.is_file())
        write_json(staging / MANIFEST, {"generator": GENERATOR, "kind": kind, "files": [*files, MANIFEST]})
        for file in [*files, MANIFEST]:
            flush_to_disk(staging / file)
        staging.chmod(0o777 & ~_umask())
        check_destination(
            path, overwrite=overwrite, kind=kind
        )  # the work took time: somebody may have put a file there
        _swap_in(staging, path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


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
        If it exists and may not, is a folder, or its folder does not exist.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder, but a file is to be written: choose another name.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists: choose another name, or pass --overwrite.")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"{path.parent} does not exist: make that folder first.")


def check_destination(path: str | Path, *, overwrite: bool = False, kind: str = "result") -> None:
    """Refuse a destination folder that must not be replaced, before any work is done.

    Parameters
    ----------
    path
        Folder to be written.
    overwrite
        Whether an earlier result of this kind may be replaced.
    kind
        What is to be written.

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
        if path.resolve() == Path.cwd().resolve():
            raise OutputError(f"{path} is the current folder, which cannot be replaced: choose another output folder.")
        if any(path.iterdir()):
            _refuse_unless_replaceable(path, overwrite, kind)
    ancestor = next(parent for parent in path.parents if parent.exists())
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise OutputError(f"{ancestor} is not writable: choose an output folder elsewhere or change its permissions.")


def list_in_result(folder: str | Path, name: str) -> None:
    """Count a file that was added later among a result's own, so that `--overwrite` may replace it with the rest.

    Parameters
    ----------
    folder
        A result; any other folder is left as it is.
    name
        File in it.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    if manifest is not None and name not in manifest["files"]:
        write_json(folder / MANIFEST, {**manifest, "files": [*manifest["files"], name]})


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


def _refuse_unless_replaceable(path: Path, overwrite: bool, kind: str) -> None:
    manifest = _manifest(path)
    if manifest is None:
        raise OutputError(f"{path} holds files that braincorl did not write: choose a new or empty output folder.")
    if manifest["kind"] != kind:
        raise OutputError(f"{path} holds a {manifest['kind']}, not a {kind}: choose another output folder.")
    if not overwrite:
        raise OutputError(f"{path} holds an earlier result: choose another output folder, or pass --overwrite.")
    foreign = _foreign_file(path)
    if foreign is not None:
        raise OutputError(
            f"{path} holds {foreign}, which this result does not list: move it, or choose another output folder."
        )


def _manifest(folder: Path) -> dict[str, Any] | None:
    """Read what a result lists as its own files; None if the folder is no result of braincorl."""
    try:
        manifest = read_json(folder / MANIFEST)
    except InputError:
        return None
    return manifest if manifest.get("generator") == GENERATOR and {"kind", "files"} <= manifest.keys() else None


def _foreign_file(folder: Path) -> Path | None:
    """Find a file that is neither the result's own nor that of a result inside it, as scores inside a fit are."""
    own = {folder / name for name in (_manifest(folder) or {"files": []})["files"]}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            inside = _foreign_file(entry) if _manifest(entry) else _first_unlisted(entry, own)
            if inside is not None:
                return inside
        elif entry not in own:
            return entry
    return None


def _first_unlisted(folder: Path, own: set[Path]) -> Path | None:
    files = (file for file in sorted(folder.rglob("*")) if not file.is_dir() or file.is_symlink())
    return next((file for file in files if file not in own), None)


def _swap_in(staging: Path, path: Path) -> None:
    """Rename `staging` to `path`, keeping what stood there until the new folder is in place."""
    target = path.resolve()  # through a link, so that the link itself stays
    if not target.exists():
        staging.rename(target)
        return
    previous = Path(tempfile.mkdtemp(prefix=f".{target.name}.previous-", dir=target.parent)) / target.name
    try:
        target.rename(previous)
        staging.rename(target)
    except BaseException:  # an interrupt too: the earlier result goes back, or stays where it was moved
        if previous.exists() and not target.exists():
            previous.rename(target)
        raise
    shutil.rmtree(previous.parent, ignore_errors=True)


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
