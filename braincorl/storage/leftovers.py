"""What killed runs leave behind, and how it is told from the work of a run that goes on.

Results are written under a temporary name in the folder where they will be. Whoever does so holds a shared lock on
that folder, which the system takes back from a process that is killed. Where nobody holds one, temporary names are
leftovers, and the next run into the same place removes them.
"""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows, where leftovers stay
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_PATIENCE = 2.0  # seconds that another run may take to tidy up


@contextmanager
def at_work(folder: Path, is_leftover: Callable[[str], bool]) -> Iterator[None]:
    """Write in a folder, after removing what killed runs left there.

    Parameters
    ----------
    folder
        Existing folder.
    is_leftover
        Whether a name in it is a temporary one of the same destination.
    """
    descriptor = _open(folder)
    if descriptor is None:
        yield
        return
    try:
        found = [name for name in _names(folder) if is_leftover(name)]
        if found and _lock(descriptor, exclusive=True):
            for name in found:
                _remove(folder / name)
        _lock(descriptor, exclusive=False)
        yield
    finally:
        os.close(descriptor)


def nobody_works_in(folder: Path) -> bool:
    """Whether no run writes into a folder now; False where that cannot be told."""
    descriptor = _open(folder)
    if descriptor is None:
        return False
    try:
        return _lock(descriptor, exclusive=True)
    finally:
        os.close(descriptor)


def _open(folder: Path) -> int | None:
    if fcntl is None:
        return None
    try:
        return os.open(folder, os.O_RDONLY)
    except OSError:  # a folder that may be written to but not looked into
        return None


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _lock(descriptor: int, *, exclusive: bool) -> bool:
    """Lock a folder, waiting for nobody to be exclusive but not for everybody to be gone; False if that fails."""
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    until = time.monotonic() + (0 if exclusive else _PATIENCE)
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.02)
        except OSError:  # some network file systems have no locks
            return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
    logger.info("%s, which a run that was stopped had left, is removed", path)
