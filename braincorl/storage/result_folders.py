"""Folders of results that land whole or not at all, and that replace nothing but results.

A folder is filled beside its destination under a temporary name, with a manifest of its files, and renamed to the
destination in one step. A run that fails or is killed leaves the destination as it was; what it leaves beside it is
removed by the next run there.
"""

import contextlib
import ctypes
import errno
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from braincorl.errors import InputError, OutputError
from braincorl.storage.files import GENERATOR, flush_to_disk, output_error, read_json, remove_anyway, umask, write_json
from braincorl.storage.leftovers import at_work, nobody_works_in

logger = logging.getLogger(__name__)

MANIFEST = ".braincorl.json"
_HERE, _RENAME_EXCHANGE = -100, 2  # AT_FDCWD and the flag of renameat2, as Linux numbers them


@contextmanager
def staged_directory(path: str | Path, *, overwrite: bool = False, kind: str = "result") -> Iterator[Path]:
    """Fill a folder aside, then move it to `path`, with a manifest of what was written.

    Parameters
    ----------
    path
        Destination folder. It must not exist, or be empty, or (with `overwrite`) be an earlier result of this kind.
    overwrite
        Replace an earlier result, if it holds nothing but what its manifest lists; not if another result is inside it.
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
    target = path.resolve()  # through a link, so that the link itself stays and everything is on one file system
    with (
        _folder_for(target),
        at_work(target.parent, lambda name: name.startswith((_staging_name(target), _previous_name(target)))),
    ):
        staging = target.parent / f"{_staging_name(target)}{secrets.token_hex(5)}"
        try:
            staging.mkdir(mode=0o700)
            yield staging
            files = [str(file.relative_to(staging)) for file in _everything_in(staging) if file.is_file()]
            write_json(staging / MANIFEST, {"generator": GENERATOR, "kind": kind, "files": [*files, MANIFEST]})
            for file in [*files, MANIFEST]:
                flush_to_disk(staging / file)
            staging.chmod(0o777 & ~umask())
            # The work took time: somebody may have put a file there.
            check_destination(path, overwrite=overwrite, kind=kind)
            _swap_in(staging, target)
        except OutputError as error:  # of a file in there: users know it by the name that it was to have
            raise OutputError(str(error).replace(str(staging), str(path))) from error
        except OSError as error:
            raise output_error(path, error) from error
        finally:
            _remove(staging)


def _remove(folder: Path) -> None:
    """Remove a folder that is of no more use."""
    remove_anyway(lambda: shutil.rmtree(folder, ignore_errors=True))
    if folder.exists():
        logger.warning("%s cannot be removed: the next run here will try again", folder)


@contextmanager
def _folder_for(target: Path) -> Iterator[None]:
    """Make the folders above a destination, and take those away again that a failure leaves empty."""
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(target, error) from error
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # no longer empty: somebody else works there
            for parent in made:
                parent.rmdir()
        raise


def check_destination(path: str | Path, *, overwrite: bool = False, kind: str = "result") -> None:
    """Refuse a destination folder that must not be replaced, before any work is done.

    An earlier result that a killed run had moved aside is put back first.

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
        If `path` is a file, a mount point, a folder with other content, or cannot be written to.
    """
    path = Path(path).absolute()
    recover(path)
    if path.is_symlink() and not path.exists():
        raise OutputError(f"{path} is a link to nothing: choose another output folder.")
    path = path.resolve()
    if path.exists():
        if not path.is_dir():
            raise OutputError(f"{path} is a file, but a folder is to be written: choose another name.")
        if path == Path.cwd().resolve():
            raise OutputError(f"{path} is the current folder, which cannot be replaced: choose another output folder.")
        if _is_mount_point(path):
            raise OutputError(
                f"{path} is a mount point, which cannot be replaced: choose a folder inside it, such as {path / kind}."
            )
        if any(path.iterdir()):
            _refuse_unless_replaceable(path, overwrite, kind)
    ancestor = next(parent for parent in path.parents if parent.exists())
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise OutputError(f"{ancestor} is not writable: choose an output folder elsewhere or change its permissions.")


def recover(path: str | Path) -> None:
    """Put an earlier result back that a run, killed while it replaced it, left under a hidden name.

    Parameters
    ----------
    path
        The result's folder; nothing is done if it is there, or if a run works beside it.
    """
    target = Path(path).resolve()
    if target.exists() or not target.parent.is_dir():
        return
    for previous in sorted(target.parent.glob(f"{escape(_previous_name(target))}*/{escape(target.name)}")):
        if _manifest(previous) is not None and nobody_works_in(target.parent):
            previous.rename(target)
            with contextlib.suppress(OSError):
                previous.parent.rmdir()
            logger.warning("%s is put back, which a run that was stopped had moved aside", target)
            return


def holds_result(path: str | Path, kind: str) -> bool:
    """Whether a folder is a result of a kind, such as "fit"; what a killed run had moved aside is put back first."""
    recover(path)
    manifest = _manifest(Path(path))
    return manifest is not None and manifest["kind"] == kind


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
    own = {path / name for name in manifest["files"]}
    for entry in _everything_in(path):
        if entry.is_dir() and not entry.is_symlink():
            inside = _manifest(entry)
            if inside is not None:
                raise OutputError(
                    f"{path} holds {entry}, a {inside['kind']} that would be deleted with it: move that folder first, "
                    "or choose another output folder."
                )
        elif entry not in own:
            raise OutputError(
                f"{path} holds {entry}, which this result does not list: move it, or choose another output folder."
            )


def _everything_in(folder: Path) -> list[Path]:
    """Files and folders below a folder, in order of name; unlike `rglob`, not without those that may not be seen."""

    def refuse(error: OSError) -> None:
        raise error

    walk = os.walk(folder, onerror=refuse)
    return sorted(Path(here, name) for here, folders, files in walk for name in (*folders, *files))


def _manifest(folder: Path) -> dict[str, Any] | None:
    """Read what a result lists as its own files; None if the folder is no result of braincorl."""
    try:
        manifest = read_json(folder / MANIFEST)
    except InputError:
        return None
    files = manifest.get("files")
    listed = isinstance(files, list) and all(isinstance(name, str) for name in files)
    own = manifest.get("generator") == GENERATOR and isinstance(manifest.get("kind"), str) and listed
    return manifest if own else None


def _staging_name(target: Path) -> str:
    return f".{target.name}.partial-"


def _previous_name(target: Path) -> str:
    return f".{target.name}.previous-"


def _is_mount_point(path: Path) -> bool:
    """Whether something is mounted at a folder; Python alone misses a part of a file system mounted on itself."""
    if path.is_mount():
        return True
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    escaped = str(path).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    return any(line.split(" ")[4] == escaped for line in mounts)


def _swap_in(staging: Path, target: Path) -> None:
    """Rename `staging` to `target`, in one step where the system can exchange names.

    What stood there ends up in `staging`, or is moved aside until the new folder is in place; a run that is killed in
    between leaves it for `recover`.
    """
    if not target.exists():
        staging.rename(target)
        return
    if _exchange(staging, target):
        return
    previous = target.parent / f"{_previous_name(target)}{secrets.token_hex(5)}" / target.name
    try:
        previous.parent.mkdir(mode=0o700)
        target.rename(previous)
        staging.rename(target)
    except BaseException:  # an interrupt too: the earlier result goes back, or stays where it was moved
        if previous.exists() and not target.exists():
            previous.rename(target)
        with contextlib.suppress(OSError):  # not empty: the earlier result is in there
            previous.parent.rmdir()
        raise
    _remove(previous.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system does not know how."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if call is None or call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return call is not None
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(one))
