"""An unfinished embedding on disk: what was done stays done, and a changed input is noticed.

The file `OUTPUT.partial` holds one line of JSON that says what is being embedded and how, then records, each a batch
of rows with a checksum and a fingerprint of the images behind it. A run that is killed leaves whole records and
perhaps a torn one, which is cut off when the run is taken up again. Images that are still to be done may change (a
damaged one may be mended); images that are done may not. The finished features are written from it in one step; then
it is removed.
"""

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError, OutputError
from braincorl.storage.files import lock_file

_RECORD = struct.Struct("<II32s")  # number of rows, CRC-32 of their bytes, fingerprint of their images

Rows = npt.NDArray[np.float32]
StateOfRows = Callable[[int, int], bytes]


class Journal:
    """Rows that are done, beside the file that they will make up.

    Parameters
    ----------
    output
        The file to be written in the end.
    job
        Everything that the rows depend on; JSON-serialisable.
    n_features
        Numbers in a row.
    state_of
        Fingerprint (32 bytes) of the images of rows from start to before stop.
    restart
        Throw away what an earlier run has done.

    Raises
    ------
    InputError
        If an earlier run into the same output was of another job, or images that it has done have changed.
    OutputError
        If another run is writing, or the file cannot be written.
    """

    def __init__(
        self,
        output: str | Path,
        job: Mapping[str, Any],
        n_features: int,
        state_of: StateOfRows,
        *,
        restart: bool = False,
    ) -> None:
        self.path = Path(f"{output}.partial")
        self.n_features = n_features
        self._state_of = state_of
        self._job: dict[str, Any] = json.loads(json.dumps(dict(job), sort_keys=True))
        try:
            self._file: BinaryIO = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written ({error.strerror}): choose another output.") from error
        try:
            lock_file(self._file, self.path)
            self._start = self._check_header(restart)
            self.n_done = self._recover()
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if self.n_done == 0:
            self.remove()  # nothing is lost, and a mistake leaves nothing behind

    def append(self, rows: Rows) -> None:
        """Add rows (n, n_features), and hand them to the system at once.

        Raises
        ------
        OutputError
            If they cannot be written, as on a full disk.
        """
        content = np.ascontiguousarray(rows, dtype="<f4").tobytes()
        try:
            state = self._state_of(self.n_done, self.n_done + len(rows))
            self._file.write(_RECORD.pack(len(rows), zlib.crc32(content), state) + content)
            self._file.flush()
        except OSError as error:
            raise self._not_written(error) from error
        self.n_done += len(rows)

    def blocks(self) -> Iterator[Rows]:
        """Rows that are done, record by record."""
        self._file.seek(self._start)
        for rows, _ in self._records():
            yield rows

    def remove(self) -> None:
        """Delete the file, once its rows are safe elsewhere."""
        self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk refuses the buffered rest a second time; it was reported
            self._file.close()

    def _not_written(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path} cannot be written ({error.strerror}): free some space and rerun.")

    def _check_header(self, restart: bool) -> int:
        """Where the records start; writes the header of a new run."""
        line = self._file.readline()
        # Killed while the header was being written: nothing is lost.
        torn = line == b"" or (line.startswith(b"{") and not line.endswith(b"\n"))
        if not torn:
            earlier = self._read_job(line)
            if not restart:
                self._compare(earlier)
                return len(line)
        self._file.seek(0)
        self._file.truncate()
        try:
            self._file.write(json.dumps(self._job, sort_keys=True).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            self.remove()
            raise self._not_written(error) from error
        return self._file.tell()

    def _read_job(self, line: bytes) -> dict[str, Any]:
        try:
            job = json.loads(line)
        except ValueError:
            job = None
        if not isinstance(job, dict):
            raise OutputError(f"{self.path} is no unfinished run of braincorl: move it, or choose another output.")
        return job

    def _compare(self, earlier: Mapping[str, Any]) -> None:
        for key in sorted({*earlier, *self._job}):
            if earlier.get(key) != self._job.get(key):
                before, now = (_short(job.get(key)) for job in (earlier, self._job))
                raise InputError(
                    f"{self.path} is an unfinished run with another {key} ({before}, now {now}): "
                    "repeat that run to finish it, or restart."
                )

    def _recover(self) -> int:
        """Count the rows that are done and cut off what follows them."""
        self._file.seek(self._start)
        n_done, end = 0, self._start
        for rows, state in self._records():
            if self._state_of(n_done, n_done + len(rows)) != state:
                raise InputError(
                    f"{self.path} is an unfinished run, and of its images {n_done + 1} to {n_done + len(rows)} one or "
                    "more changed since: restart."
                )
            n_done, end = n_done + len(rows), self._file.tell()
        self._file.truncate(end)
        self._file.seek(end)
        return n_done

    def _records(self) -> Iterator[tuple[Rows, bytes]]:
        while len(head := self._file.read(_RECORD.size)) == _RECORD.size:
            n_rows, checksum, state = _RECORD.unpack(head)
            content = self._file.read(4 * n_rows * self.n_features)
            if len(content) < 4 * n_rows * self.n_features or zlib.crc32(content) != checksum:
                return
            yield np.frombuffer(content, dtype="<f4").reshape(n_rows, self.n_features), state


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
