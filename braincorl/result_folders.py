"""Folders of results that land whole or not at all, and that replace nothing but results.

A folder is filled beside its destination under a temporary name, with a manifest of its files, and renamed to the
destination in one step. A run that fails or is killed leaves the destination as it was.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from braincorl.errors import InputError, OutputError
from braincorl.files import GENERATOR, flush_to_disk, output_error, read_json, umask, write_json

MANIFEST = ".braincorl.json"


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
        raise output_error(path, error) from error
    try:
        yield staging
        files = sorted(str(file.relative_to(staging)) for file in staging.rglob("*") if file.is_file())
        write_json(staging / MANIFEST, {"generator": GENERATOR, "kind": kind, "files": [*files, MANIFEST]})
        for file in [*files, MANIFEST]:
            flush_to_disk(staging / file)
        staging.chmod(0o777 & ~umask())
        # The work took time: somebody may have put a file there.
        check_destination(path, overwrite=overwrite, kind=kind)
        _swap_in(staging, path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


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
