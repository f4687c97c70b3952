"""Faults at the k-th step of a run, and what a folder holds, decoded: the machinery of `faults.py` and of its tests.

A *step* is a moment at which the file system is asked for something: Python says so itself, through audit hooks, for
opening, renaming, making and removing; writing and flushing go through a file of our own. C libraries that write
files by themselves are reached by signals at random times and by limits instead.
"""

import builtins
import errno
import gzip
import hashlib
import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

READ = (errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE, errno.ENOMEM)
WRITE = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG)
ERRORS = {  # what the system may answer to each kind of step
    "read": READ,
    "list": (errno.EIO, errno.EACCES, errno.ESTALE),
    "create": (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EMFILE, errno.EDQUOT, errno.EIO),
    "write": WRITE,
    "flush": (errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "rename": (errno.EIO, errno.EACCES, errno.ENOSPC, errno.EBUSY),
    "make": (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT),
    "remove": (errno.EACCES, errno.EBUSY, errno.EIO),
    "chmod": (errno.EPERM, errno.EIO),
    "cut": (errno.EIO, errno.ENOSPC),
    "lock": (errno.ENOLCK, errno.EIO),
    "exchange": (),
}
_EVENTS = {
    "os.rename": "rename",
    "os.mkdir": "make",
    "os.remove": "remove",
    "os.rmdir": "remove",
    "os.chmod": "chmod",
    "os.truncate": "cut",
    "os.listdir": "list",
    "os.scandir": "list",
    "fcntl.flock": "lock",
    "ctypes.dlsym": "exchange",
}
_FILL_DISKS = ("create", "write", "flush", "make", "cut")

Visit = Callable[[int, str, str], None]
"""Called with (number of the step, its kind, its path), before it is taken."""


class _Steps:
    """Counts the steps that concern a folder, and tells somebody of each."""

    def __init__(self) -> None:
        self.root, self.visit, self.count, self.busy = "", None, 0, False

    def tell(self, kind: str, path: Any) -> None:
        if self.visit is None or self.busy:
            return
        self.busy = True
        try:
            name = _absolute(path)
            if name is None or not (name == self.root or name.startswith(self.root + os.sep)):
                return
            self.count += 1
            self.visit(self.count - 1, kind, name)
        finally:
            self.busy = False


_steps = _Steps()
_hooked: list[bool] = []


def _absolute(path: Any) -> str | None:
    if isinstance(path, int):
        try:
            return str(Path(f"/proc/self/fd/{path}").readlink())
        except OSError:
            return None
    try:
        return os.path.abspath(os.fsdecode(path))  # noqa: PTH100
    except TypeError:
        return None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _steps.visit is None or _steps.busy:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else "r" not in (mode or "r")
        _steps.tell("create" if writes else "read", path)
    elif event == "ctypes.dlsym":
        if arguments[1] == "renameat2":
            _steps.tell("exchange", _steps.root)
    elif event in _EVENTS:
        _steps.tell(_EVENTS[event], "." if arguments[0] is None else arguments[0])


class _ToldFile(io.FileIO):
    """A file that tells of every writing."""

    def write(self, data: Any) -> int:
        _steps.tell("write", self.fileno())
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        _steps.tell("cut", self.fileno())
        return super().truncate(size)


_open, _fsync = io.open, os.fsync


def _told_open(file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
               newline: Any = None, closefd: bool = True, opener: Any = None) -> Any:  # fmt: skip
    name = _absolute(file)
    if _steps.visit is None or name is None or not name.startswith(_steps.root + os.sep) or not set(mode) & set("wax+"):
        return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)
    raw = _ToldFile(file, mode.replace("b", "").replace("t", ""), closefd, opener)
    if buffering == 0:
        return raw
    buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    return buffered if "b" in mode else io.TextIOWrapper(buffered, io.text_encoding(encoding), errors, newline)


def _told_fsync(descriptor: Any) -> None:
    _steps.tell("flush", descriptor if isinstance(descriptor, int) else descriptor.fileno())
    _fsync(descriptor)


@contextmanager
def steps(root: str | Path, visit: Visit) -> Iterator[None]:
    """Call `visit` before every step that concerns a folder; what it raises is what the step ends with."""
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked.append(True)
    _steps.root, _steps.count, _steps.visit = os.path.abspath(root), 0, visit  # noqa: PTH100
    io.open = builtins.open = _told_open  # type: ignore[assignment]
    os.fsync = _told_fsync
    try:
        yield
    finally:
        io.open = builtins.open = _open
        os.fsync, _steps.visit = _fsync, None


@dataclass(frozen=True)
class ErrorAt:
    """The system refuses a step.

    Attributes
    ----------
    step
        Its number.
    choice
        Which of the errors that such a step may meet.
    lasting
        Refuse everything after it that needs room on the disk, too.
    """

    step: int
    choice: int
    lasting: bool = False

    def __call__(self, number: int, kind: str, path: str) -> None:
        """Raise, if it is time."""
        if self.lasting and number >= self.step and kind in _FILL_DISKS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if number == self.step and not self.lasting and ERRORS[kind]:
            code = ERRORS[kind][self.choice % len(ERRORS[kind])]
            raise OSError(code, os.strerror(code), path)


@dataclass(frozen=True)
class SignalAt:
    """A signal arrives before a step; and once more some steps later, if `twice`."""

    step: int
    number: int
    twice: int = 0
    group: bool = False

    def __call__(self, number: int, _kind: str, _path: str) -> None:
        """Send it, if it is time."""
        if number == self.step or (self.twice and number == self.step + self.twice):
            (os.killpg if self.group else os.kill)(os.getpgid(0) if self.group else os.getpid(), self.number)


@contextmanager
def lines(pattern: str, visit: Callable[[int], None]) -> Iterator[None]:
    """Call `visit` before every line of the files whose path matches a pattern."""
    wanted, count = re.compile(pattern), 0

    def trace_line(_frame: Any, event: str, _argument: Any) -> Any:
        nonlocal count
        if event == "line":
            count += 1
            visit(count - 1)
        return trace_line

    def trace_call(frame: Any, _event: str, _argument: Any) -> Any:
        return trace_line if wanted.search(frame.f_code.co_filename) else None

    before = sys.gettrace()
    sys.settrace(trace_call)
    try:
        yield
    finally:
        sys.settrace(before)


# What results hold

# Times, and hashes of files that say the same in other bytes.
_VOLATILE_KEYS = {"command", "seconds", "sha256", "fit_sha256"}


def contents(folder: Path, root: Path) -> dict[str, str]:
    """Digest of everything in a folder, decoded, so that equal results are equal whenever and wherever they were made.

    Parameters
    ----------
    folder
        Results.
    root
        Folder whose own path is left out of texts.

    Returns
    -------
    dict
        Path in the folder -> digest, "folder", "link" or what is wrong with it.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() and not path.is_symlink():
            found[name] = "folder"
            continue
        if not path.is_file():  # one that is waited for until the end of time
            found[name] = "no file"
            continue
        try:
            found[name] = hashlib.sha256(_decoded(path, root)).hexdigest()[:16]
        except Exception as error:
            found[name] = f"unreadable: {error}"[:200]
    return found


def _decoded(path: Path, root: Path) -> bytes:
    """Read what a file means, whatever it looks like on the disk."""
    suffix = path.suffix if path.suffix != ".partial" else ""
    if suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if suffix == ".npz":
        with np.load(path) as arrays:
            return b"".join(name.encode() + arrays[name].tobytes() for name in sorted(arrays))
    if suffix == ".h5":
        return _hdf5(path)
    if suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            header = json.loads(json.loads((file.metadata() or {}).get("braincorl", "{}")).get("header", "{}"))
            arrays = b"".join(name.encode() + file.get_tensor(name).tobytes() for name in sorted(file.keys()))
        return arrays + _json(header, root)
    if suffix == ".pt":
        import torch

        return repr(torch.load(path, weights_only=True)["state"]).encode()
    text = path.read_bytes()
    if suffix == ".png":
        from PIL import Image

        with Image.open(path) as image:
            return image.mode.encode() if path.name == "figure.png" else image.tobytes()
    if suffix == ".json":
        return _json(json.loads(text), root)
    if path.name == "curve.tsv" or path.parent.name == "b":
        return re.sub(rb"\d+\.\d+(e-?\d+)?", b"#", text)  # seconds
    if suffix == ".html":
        text = re.sub(rb"\d{4}-\d\d-\d\d[T ][\d:.+]*", b"", text)
    return text.replace(str(root).encode(), b"")


def _json(value: Any, root: Path) -> bytes:
    return json.dumps(_lasting(value), sort_keys=True).replace(str(root), "").encode()


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lasting(part) for name, part in value.items() if name not in _VOLATILE_KEYS}
    return [_lasting(part) for part in value] if isinstance(value, list) else value


def _hdf5(path: Path) -> bytes:
    import h5py

    parts = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            values = item[()]
            parts.append(f"{name} {item.shape} ".encode())
            parts.append(values.tobytes() if values.dtype != object else repr(values.tolist()).encode())

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return b"".join(parts)


SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 130, signal.SIGHUP: 130}
