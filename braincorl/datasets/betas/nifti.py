"""NIfTI files: what the header says, checked, and volumes in order, verified to the end of the file.

The file is open only while it is read, so that a person of hundreds of sessions needs no more open files than one.
"""

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from braincorl.datasets.betas.streams import Stream, check_room, open_stream, read_to_end
from braincorl.errors import FileFormatError, InputError
from braincorl.storage.files import other_kind, reading

logger = logging.getLogger(__name__)

KIND = "NIfTI image"
WARNING_LEVEL, ERROR_LEVEL = 30, 40  # of nibabel's checks: what matters, and what cannot be put right
CIFTI_INTENTS = range(3000, 3100)  # NIFTI_INTENT_CONNECTIVITY_* of the CIFTI-2 specification


class NiftiFile:
    """A NIfTI image on disk, of which the header has been read.

    Parameters
    ----------
    path
        `.nii`, plain or compressed by gzip or bzip2.

    Attributes
    ----------
    path
        The file.
    shape
        As stored.
    affine
        (4, 4), voxel indices to millimetres, as the header says: possibly not invertible.
    space_code
        What space that is, NIfTI's code of the transform used: 0 unknown, 1 scanner, 2 aligned, 3 Talairach, 4 MNI.
    stored_type
        Type of the numbers in the file, before any scaling of its header.
    is_scaled
        Whether the header scales or shifts its numbers.

    Raises
    ------
    InputError
        If the file is missing or no regular file.
    FileFormatError
        If it is no NIfTI image of real numbers, or too short for its header.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with open_stream(self.path, KIND) as stream, _overflowing():
            header = _read_header(stream, self.path)
            self.shape: tuple[int, ...] = tuple(map(int, header.get_data_shape()))
            self.stored_type: np.dtype[Any] = header.get_data_dtype()
            if self.stored_type.kind not in "fiub":
                raise FileFormatError(f"{path} holds values of type {self.stored_type}, expected real numbers.")
            if not self.shape or min(self.shape) < 1:
                raise InputError(f"{path} has shape {self.shape}, expected (X, Y, Z, trials).")
            self._header = header
            self.offset = int(header.get_data_offset())
            self.n_bytes = self.offset + int(np.prod(self.shape, dtype=object)) * self.stored_type.itemsize
            slope, inter = header.get_slope_inter()
            self.is_scaled = (slope, inter) not in ((None, None), (1.0, 0.0))
            self.affine = np.asarray(header.get_best_affine(), dtype=np.float64)
            self.space_code = int(header["sform_code"]) or int(header["qform_code"])
            check_room(self.path, KIND, stream, self.n_bytes)

    def volumes(self, step: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield (index of the first volume, volumes (X, Y, Z, n)) in order; a 3-D file has one volume.

        Raises
        ------
        FileFormatError
            If the file is damaged; for a compressed one at the latest after the last volume.
        """
        n = self.shape[3] if len(self.shape) > 3 else 1
        with open_stream(self.path, KIND) as stream:
            data = ArrayProxy(stream, self._header, mmap=False)
            for start in range(0, n, step):
                with reading(self.path, f"is truncated or damaged at volume {start} of {n}"), _overflowing():
                    chunk = np.asarray(data[..., start : start + step] if data.ndim > 3 else data)
                    if start + step >= n:  # before the last volumes are handed out
                        read_to_end(stream)
                yield start, chunk[..., None] if data.ndim == 3 else chunk

    def read(self) -> npt.NDArray[Any]:
        """Read everything.

        Raises
        ------
        FileFormatError
            If the file is damaged.
        """
        with open_stream(self.path, KIND) as stream, reading(self.path, "is truncated or damaged"), _overflowing():
            values = np.asanyarray(ArrayProxy(stream, self._header, mmap=False))
            read_to_end(stream)
        return values


def _overflowing() -> np.errstate:
    """Numbers that a slope makes too large become infinite, which whoever reads them looks at."""
    return np.errstate(over="ignore", invalid="ignore")


class _Remarks:
    """Takes nibabel's remarks on a header: of what was put right; what could not be is said by an error."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def log(self, level: int, remark: str) -> None:
        if WARNING_LEVEL <= level < ERROR_LEVEL:
            logger.info("%s: %s", self._path, remark)


def _read_header(stream: Stream, path: Path) -> Any:
    start = stream.read(16)
    size = start[:4]
    stream.seek(0)
    if (found := other_kind(start)) is not None:
        raise FileFormatError(f"{path} is {found}, expected a NIfTI image (.nii or .nii.gz).")
    if path.suffix.lower() == ".img":
        raise FileFormatError(
            f"{path} holds the data of a pair of files, expected a NIfTI image in one (.nii, .nii.gz)."
        )
    kind = Nifti2Header if (540).to_bytes(4, "little") in (size, size[::-1]) else Nifti1Header
    # Without extensions, of which nothing is needed: nibabel would read as many as the file says there are.
    header = kind.from_fileobj(io.BytesIO(stream.read(kind.template_dtype.itemsize) + bytes(4)), check=False)
    if header["magic"].item()[:3] in (b"ni1", b"ni2"):
        raise FileFormatError(
            f"{path} is the header of a pair of files, expected a NIfTI image in one (.nii, .nii.gz)."
        )
    header.check_fix(logger=_Remarks(path), error_level=ERROR_LEVEL)
    if np.isinf(header["scl_slope"]):
        raise FileFormatError(f"{path} scales its numbers by infinity, so its header is damaged: get a new copy.")
    if int(header["intent_code"]) in CIFTI_INTENTS:
        raise FileFormatError(f"{path} is a CIFTI file, expected a NIfTI image of a volume (.nii or .nii.gz).")
    return header
