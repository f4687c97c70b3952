"""Files that land whole or not at all, and files that are read with one kind of error.

A file is written beside its destination under a temporary name, flushed to the disk, and renamed over the destination
in one step. A run that fails or is killed leaves the destination as it was.

Whatever a library raises while it reads a file becomes one of ours in `reading`, which tells a fault of the system (no
permission, too many open files, a lock) from a fault of the file.
"""

import errno
import json
import logging
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from braincorl.errors import BraincorlError, FileFormatError, InputError, OutputError
from braincorl.storage.leftovers import at_work

try:
    import fcntl
except ImportError:  # not on Windows, where two runs into one file are not noticed
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

GENERATOR = "braincorl"

# What a file is by its first bytes, where it may be given for a file of another kind.
_KINDS = {
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"PK\x03\x04": "a zip archive, as .npz, .xlsx and .pth files are",
    b"\x89HDF\r\n": "an HDF5 file",
    b"\x1f\x8b": "compressed by gzip",
    b"BZh": "compressed by bzip2",
    b"MATLAB": "a MATLAB file",
    b"<?xml": "an XML file, as GIFTI is",
    b"%PDF": "a PDF",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # what spreadsheets call Unicode text
_TEMPORARY = ".partial-"

# What the system says of itself, and what can be done; the file may be as good as ever. Others follow below.
_REMEDIES = {
    errno.EMFILE: "too many files are open in this process: raise the limit (ulimit -n 4096)",
    errno.ENFILE: "too many files are open on this machine: close programs, or try again later",
    errno.EACCES: "you have no permission: change it (chmod), or ask the file's owner",
    errno.EPERM: "you have no permission: change it (chmod), or ask the file's owner",
    errno.EAGAIN: "another program holds it open for writing: close it there, and run again",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead in a circle: remove one",
    errno.ENOLCK: "its file system has no locks: set HDF5_USE_FILE_LOCKING=FALSE if nobody writes to it",
    errno.ENOMEM: "the system is out of memory: close programs, or try again later",
}
# Errors with these numbers, or with none, come from libraries that were led astray by a file's content.
_ABOUT_CONTENT = {None, 0, errno.EINVAL, errno.ESPIPE, errno.EOVERFLOW, errno.ERANGE}


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Write a file aside, then move it to `path`; temporary files that a killed run left there are removed.

    Parameters
    ----------
    path
        Destination. Its folder must exist. A symbolic link stays, and what it leads to is replaced.

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
    target = path.resolve() if path.is_symlink() else path  # the link stays, and what it leads to is replaced
    if not target.parent.is_dir():
        raise output_error(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))

    def is_leftover(name: str) -> bool:
        return name.startswith(_TEMPORARY) and name.endswith(f"-{target.name}")

    # Named here, so that an interrupt finds the name known whenever it comes.
    temporary = target.parent / f"{_TEMPORARY}{secrets.token_hex(5)}-{target.name}"
    with at_work(target.parent, is_leftover):
        try:
            os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            yield temporary
            flush_to_disk(temporary)
            temporary.chmod(0o666 & ~umask())  # private until it is whole; results get the user's usual mode
            temporary.replace(target)
        except OSError as error:
            raise output_error(path, error) from error
        finally:
            remove_anyway(lambda: temporary.unlink(missing_ok=True))


def remove_anyway(remove: Callable[[], object]) -> None:
    """Remove what is of no more use, again if an interrupt came in between."""
    try:
        remove()
    except OSError:
        raise
    except BaseException:
        with suppress(OSError):
            remove()
        raise


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
    """JSON that stays readable in any script; half characters, as in names that are no UTF-8, are escaped.

    Paths become text; arrays, their numbers, ranges and other sequences become lists and numbers.

    Raises
    ------
    InputError
        If something in it can be written in no such way.
    """
    text = json.dumps(content, ensure_ascii=False, default=_plain, **options)
    return text.encode(errors="backslashreplace").decode()


def _plain(value: Any) -> Any:
    """Turn what JSON does not know into what it does."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers, pandas' series
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise InputError(f"{value!r} is a {type(value).__name__}, which cannot be written as JSON: pass text or numbers.")


def check_regular(path: str | Path, kind: str = "file") -> Path:
    """Refuse what is no file with content: a folder, a pipe, a device, a link to nothing, an empty file.

    A pipe could be read once only and might never end; a file of `/proc` has no size.

    Parameters
    ----------
    path
        The input.
    kind
        What was expected, as in "NIfTI image", for the message.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        Saying what it is instead.
    """
    path = Path(path)
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise InputError(
                f"{path} is a link to a file that does not exist: fetch that file first (datalad get, git annex get)."
            ) from error
        raise InputError(f"{path} does not exist: check the name; expected a {kind}.") from error
    except ValueError as error:  # a zero byte in the name
        raise InputError(f"{str(path)!r} is no file name ({error}).") from error
    except OSError as error:
        raise _input_error(path, error) from error
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{path} cannot be read: it is a folder, expected a {kind}.")
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path} cannot be read: it is a pipe or device, save its content as a file.")
    if found.st_size == 0:
        raise FileFormatError(f"{path} is empty (0 bytes) and not a readable {kind}: get a new copy.")
    return path


@contextmanager
def reading(path: str | Path, problem: str) -> Iterator[None]:
    """Turn whatever a library raises while it reads a file into one error of ours.

    Parameters
    ----------
    path
        The file.
    problem
        What is wrong if the file is, as in "is not a readable NIfTI image".

    Raises
    ------
    InputError
        If the system is at fault.
    FileFormatError
        If the file is: damaged, truncated, or of another kind.
    """
    try:
        yield
    except (BraincorlError, MemoryError):
        raise
    except OSError as error:
        if error.errno in _ABOUT_CONTENT:
            raise FileFormatError(f"{path} {problem} ({first_line(error)}): get a new copy.") from error
        raise _input_error(path, error) from error
    except Exception as error:  # damaged bytes lead libraries to raise anything; none of it is a fault of this program
        raise FileFormatError(f"{path} {problem} ({first_line(error)}): get a new copy.") from error


@contextmanager
def within_memory(path: str | Path) -> Iterator[None]:
    """Say in a line that a file asks for more memory than there is.

    Raises
    ------
    FileFormatError
        If what is done under `with` runs out of memory.
    """
    try:
        yield
    except MemoryError as error:
        raise FileFormatError(
            f"{path} asks for more memory than there is: it is damaged (get a new copy), or too large for this machine."
        ) from error


def _input_error(path: str | Path, error: OSError) -> InputError:
    """Say that the system did not let a file be read, and what to do about it."""
    remedy = _REMEDIES.get(error.errno or 0, "the disk or network is at fault, not the file: look there, and run again")
    return InputError(f"{path} cannot be read ({os.strerror(error.errno or 0)}): {remedy}.")


def first_line(error: BaseException) -> str:
    """Cut another library's error down to its first line, for a message of one."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def one_line(text: object) -> str:
    """Lay a text on one line."""
    return " ".join(str(text).split())


def listed(names: Iterable[object], most: int = 20) -> str:
    """Names as a file has them, for a message: on one line, and no more of them than one reads; "nothing" for none."""
    found = [one_line(name)[:60] if isinstance(name, str) else f"<{type(name).__name__}>" for name in names]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more or "nothing"


def other_kind(start: bytes) -> str | None:
    """Say what a file is by its first bytes, such as "an HDF5 file"; None where they do not tell."""
    return next((kind for magic, kind in _KINDS.items() if start.startswith(magic)), None)


def read_text(path: str | Path, kind: str = "text file") -> str:
    """Read a text file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises
    ------
    InputError
        If it is missing, no regular file, not readable, or no such text.
    """
    path = check_regular(path, kind)
    with reading(path, f"cannot be read as a {kind}"):
        content = path.read_bytes()
        if (found := other_kind(content[:16])) is not None:
            remedy = "unpack it" if "compressed" in found else "save it as text"
            raise FileFormatError(f"{path} is {found}, expected a {kind}: {remedy}.")
        return content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")


def text_lines(text: str) -> list[str]:
    """Lines of a text as editors count them; other characters that Python takes for line ends may be part of a name."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    InputError
        If the file is missing or does not hold a JSON object.
    """
    text = read_text(path, "JSON file")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object, but holds a {type(content).__name__}.")
    return content


def walk_files(folder: str | Path) -> list[Path]:
    """Everything in a folder and below that is no folder, in order of name, through links to folders too.

    Links to nothing are among them, so that a reader which needs one can say so. Hidden files and folders
    (`.git`, `.datalad`, `.ipynb_checkpoints`) are left out, and told of in the log.

    Raises
    ------
    InputError
        If a folder may not be looked into.
    """
    found: list[Path] = []
    hidden: list[str] = []
    todo: list[tuple[Path, frozenset[Path]]] = [(Path(folder), frozenset())]
    while todo:
        here, above = todo.pop()
        real = here.resolve()
        if real in above:  # a link to a folder that holds it
            continue
        try:
            entries = sorted(here.iterdir())
        except OSError as error:
            raise _input_error(here, error) from error
        for entry in entries:
            if entry.name.startswith("."):
                hidden.append(entry.name)
            elif entry.is_dir():
                todo.append((entry, above | {real}))
            else:
                found.append(entry)
    if hidden:
        names = ", ".join(sorted(set(hidden))[:3])
        logger.info("%s: %d hidden files or folders are left out, such as %s", folder, len(hidden), names)
    return sorted(found)


def lock_file(file: BinaryIO, path: Path) -> None:
    """Take a file for this process alone, until it is closed; a process that is killed leaves no lock behind.

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
        if error.errno not in (errno.EAGAIN, errno.EACCES):  # some network file systems have no locks
            logger.warning(
                "%s cannot be locked (%s): let no other run write there", path, os.strerror(error.errno or 0)
            )
            return
        raise OutputError(f"{path} is being written by another run: wait for it, or stop it.") from error


def this_process() -> str:
    """Name this process to others: its number and machine."""
    return f"process {os.getpid()} on {socket.gethostname()}"


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
