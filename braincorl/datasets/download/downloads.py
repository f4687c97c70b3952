"""Downloads that can be stopped at any moment and go on where they were, and never touch a file that is not theirs.

A file arrives under `NAME.ETAG.partial` and gets its name when it is whole: its size is the bucket's, and its MD5 too
where the bucket knows it. The ETag names the content, so that a file that changed in the bucket begins anew. What was
downloaded is listed in `.braincorl-fetch.json`; a file that is not listed there is kept if it can be the bucket's, and
refused, never replaced, if it cannot.
"""

import hashlib
import logging
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from braincorl.datasets.download.bucket import Bucket, ConnectionLostError, RemoteFile
from braincorl.errors import OutputError
from braincorl.storage.files import (
    GENERATOR,
    Progress,
    ProgressCounter,
    check_free_space,
    flush_to_disk,
    lock_file,
    read_json,
    write_json,
)

logger = logging.getLogger(__name__)

RECORD = ".braincorl-fetch.json"
ATTEMPTS = 6  # without a single byte between them
FIRST_WAIT_SECONDS = 1.0  # doubled with every failure, as servers ask for


@dataclass(frozen=True)
class Transfer:
    """One file and what of it is on disk.

    Attributes
    ----------
    file
        In the bucket.
    path
        Where it belongs.
    state
        "complete"; "partial", of which the first `have` bytes are there; "outdated", an earlier download of what the
        bucket holds otherwise by now; or "missing".
    have
        Bytes that need not be downloaded.
    """

    file: RemoteFile
    path: Path
    state: Literal["complete", "partial", "outdated", "missing"]
    have: int

    @property
    def partial(self) -> Path:
        """Where it grows; the content's name in it pins what it is a part of."""
        return self.path.with_name(f"{self.path.name}.{re.sub('[^0-9A-Za-z-]', '_', self.file.etag)}.partial")


class Downloads:
    """Files of a bucket on their way to a folder that mirrors it.

    Parameters
    ----------
    bucket
        Where they come from.
    files
        Which ones.
    folder
        Where they go; a file's key is its path in there.

    Raises
    ------
    OutputError
        If a file is in the way that braincorl did not download and that is not the bucket's.
    """

    def __init__(self, bucket: Bucket, files: Sequence[RemoteFile], folder: Path) -> None:
        self._bucket, self._folder = bucket, folder
        self._record_path = folder / RECORD
        files_there = read_json(self._record_path).get("files", {}) if self._record_path.is_file() else {}
        if not isinstance(files_there, dict):
            raise OutputError(f"{self._record_path} is no list of downloads: remove it, and run again.")
        self._record = dict(files_there)
        self.transfers = [self._look(file) for file in files]
        self._lock, self._stop = threading.Lock(), threading.Event()

    @property
    def n_bytes(self) -> int:
        """Bytes in all."""
        return sum(transfer.file.size for transfer in self.transfers)

    @property
    def n_bytes_there(self) -> int:
        """Bytes that are on disk already."""
        return sum(transfer.have for transfer in self.transfers)

    def run(self, *, parallel: int = 4, progress: Progress | None = None) -> list[Path]:
        """Download what is not complete.

        Parameters
        ----------
        parallel
            Files at a time.
        progress
            Called with (bytes there, bytes in all); the first call says what was there before.

        Returns
        -------
        list of Path
            All files.

        Raises
        ------
        InputError
            If the bucket cannot be read, or a file changes in it meanwhile.
        OutputError
            If the disk is too small, or a file cannot be written. What has come is kept, for the next run.
        """
        check_free_space(self._folder, self.n_bytes - self.n_bytes_there)
        counter = ProgressCounter(self.n_bytes, progress)
        counter.add(self.n_bytes_there)
        with ThreadPoolExecutor(parallel) as pool:
            todo = [transfer for transfer in self.transfers if transfer.state != "complete"]
            futures = [pool.submit(self._transfer, transfer, counter) for transfer in todo]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:  # an interrupt too
                self._stop.set()
                for future in futures:
                    future.cancel()
                raise
        return [transfer.path for transfer in self.transfers]

    def _look(self, file: RemoteFile) -> Transfer:
        """See what of a file is there."""
        path = self._folder / file.key
        if path.exists():
            ours, size = self._record.get(file.key), path.stat().st_size if path.is_file() else -1
            if ours is not None and size >= 0:
                same = ours == {"etag": file.etag, "size": size} and size == file.size
                return Transfer(file, path, "complete", size) if same else Transfer(file, path, "outdated", 0)
            if size == file.size and file.md5 in (None, _md5(path)):
                return Transfer(file, path, "complete", size)
            raise OutputError(
                f"{path} is not the bucket's file ({file.size} bytes), and braincorl did not download it: "
                "move it away, or choose another folder."
            )
        transfer = Transfer(file, path, "missing", 0)
        have = transfer.partial.stat().st_size if transfer.partial.is_file() else 0
        return Transfer(file, path, "partial", have) if 0 < have <= file.size else transfer

    def _transfer(self, transfer: Transfer, counter: ProgressCounter) -> None:
        """Download one file, and give it its name."""
        path, partial = transfer.path, transfer.partial
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for other in path.parent.glob(f"{path.name}.*.partial"):
                if other != partial:  # of an earlier content
                    other.unlink()
            with partial.open("ab") as handle:
                lock_file(handle, partial)
                handle.truncate(min(transfer.have, handle.seek(0, 2)))
                if not self._fill(handle, transfer.file, counter):
                    return
            flush_to_disk(partial)
            if transfer.file.md5 not in (None, _md5(partial)):
                partial.unlink()
                raise OutputError(
                    f"{transfer.file.key} arrived damaged (its MD5 is wrong): run again to begin it anew."
                )
            if transfer.state != "outdated" and path.exists():
                raise OutputError(f"{path} appeared while it was downloaded: move it away, and run again.")
            self._remember(transfer.file)  # first, or a file whose listing fails would count as somebody else's
            partial.replace(path)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(
                f"{path} was not written: {error.strerror or error}. What has come is kept: run again to go on."
            ) from error

    def _fill(self, handle: BinaryIO, file: RemoteFile, counter: ProgressCounter) -> bool:
        """Append what is missing, over as many connections as it takes; False if another file's failure stopped it."""
        failures, size = 0, handle.seek(0, 2)
        while size < file.size:
            try:
                for block in self._bucket.read(file, size):
                    handle.write(block)
                    size, failures = size + len(block), 0
                    with self._lock:
                        counter.add(len(block))
                    if self._stop.is_set():
                        return False
            except ConnectionLostError as error:
                failures += 1
                if failures == ATTEMPTS:
                    raise OutputError(
                        f"{file.key} stopped at {size} of {file.size} bytes ({error}): check the network, and run "
                        "again to go on."
                    ) from error
                logger.info("%s: connection lost at %d of %d bytes, going on", file.key, size, file.size)
                handle.flush()
                if self._stop.wait(FIRST_WAIT_SECONDS * 2 ** (failures - 1)):
                    return False
        return True

    def _remember(self, file: RemoteFile) -> None:
        with self._lock:
            self._record[file.key] = {"etag": file.etag, "size": file.size}
            write_json(self._record_path, {"generator": GENERATOR, "bucket": self._bucket.name, "files": self._record})


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
