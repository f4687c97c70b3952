"""Files of one hemisphere: FreeSurfer `.mgh`, `.mgz` and `.annot`, and GIFTI, with values or trials per vertex."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy
from nibabel.freesurfer.io import read_annot
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.gifti.gifti import GiftiImage

from braincorl.batching import at_a_time
from braincorl.datasets.betas.beta_files import as_float32
from braincorl.datasets.betas.streams import check_room, open_stream, read_to_end
from braincorl.datasets.file_names import entities
from braincorl.datasets.space import Surface
from braincorl.errors import FileFormatError, InputError
from braincorl.storage.files import check_regular, reading

KIND = "surface file"
SIDES = {"CortexLeft": "left", "CortexRight": "right"}
MGH_HEADER_BYTES = 284  # as FreeSurfer writes
ENDINGS = (".mgh", ".mgz", ".gii", ".annot")


class SurfaceFile:
    """A file of one hemisphere, of which the header has been read.

    Parameters
    ----------
    path
        FreeSurfer `.mgh` or `.mgz` (n_vertices, 1, 1, T), GIFTI `.gii` with an array (n_vertices,) per trial or one
        (n_vertices, T), or for regions FreeSurfer's `.annot`.

    Attributes
    ----------
    path
        The file.
    n_vertices, n_trials
        Its size.
    side
        "left" or "right", as the file says in `AnatomicalStructurePrimary` or its name (`hemi-L`, `lh.`); None if it
        does not say.
    labels
        Number -> name of a region, where the file has such a table; else empty.

    Raises
    ------
    InputError
        If the file is missing, another kind of file, of other shapes, or says of itself that it is of the hemisphere
        that its name contradicts.
    FileFormatError
        If it is damaged, or its data are in another file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = check_regular(path, KIND)
        if not self.path.name.endswith(ENDINGS):
            raise InputError(f"{path} is of another kind, expected {', '.join(ENDINGS)} of one hemisphere.")
        self.side, self.labels = _side_in_name(self.path), dict[int, str]()
        if self.path.suffix == ".annot":
            self.n_vertices, self.n_trials = self._annotation().size, 1
            return
        if self.path.suffix == ".gii":
            image = self._gifti()
            shapes = {array.data.shape for array in image.darrays}
            shape: tuple[int, ...] = next(iter(shapes)) if len(shapes) == 1 else ()
            if len(shape) not in (1, 2) or 0 in shape or (len(shape) == 2 and len(image.darrays) > 1):
                raise InputError(
                    f"{path} holds arrays of shapes {sorted(shapes)}, expected one (n_vertices,) per trial, or one "
                    "(n_vertices, trials) in all."
                )
            self.n_vertices, self.n_trials = int(shape[0]), len(image.darrays) if len(shape) == 1 else int(shape[1])
            said = _side_in_metadata(image)
            if None not in (said, self.side) and said != self.side:
                raise InputError(
                    f"{path} is of the {self.side} hemisphere by its name, but its AnatomicalStructurePrimary says "
                    f"{said}: find out which is true, and rename it or set the other."
                )
            self.side = said or self.side
            self.labels = {int(key): str(name) for key, name in image.labeltable.get_labels_as_dict().items()}
            return
        with open_stream(self.path, KIND) as stream:
            self._header = MGHHeader.from_fileobj(stream)
            shape = tuple(map(int, self._header.get_data_shape()))
            if len(shape) not in (3, 4) or shape[1:3] != (1, 1) or min(shape) < 1:
                raise InputError(f"{path} has shape {shape}, expected (n_vertices, 1, 1, trials).")
            kind = self._header.get_data_dtype()
            if kind.kind not in "fiu":
                raise FileFormatError(f"{path} holds values of type {kind}, expected numbers.")
            check_room(self.path, KIND, stream, MGH_HEADER_BYTES + int(np.prod(shape, dtype=object)) * kind.itemsize)
        self.n_vertices, self.n_trials = shape[0], shape[3] if len(shape) == 4 else 1

    def trials(self, step: int) -> Iterator[npt.NDArray[Any]]:
        """Yield trials (n, n_vertices) in order, verified at the latest with the last.

        Raises
        ------
        FileFormatError
            If the file is damaged.
        """
        if self.path.suffix == ".annot":
            yield self._annotation()[None]
            return
        if self.path.suffix == ".gii":
            arrays = [array.data for array in self._gifti().darrays]
            if arrays[0].ndim == 2:
                arrays = list(arrays[0].T)
            for start in range(0, self.n_trials, step):
                with reading(self.path, "holds no numbers"):
                    yield np.stack(arrays[start : start + step])
            return
        shape = (self.n_vertices, 1, 1, self.n_trials)
        with open_stream(self.path, KIND) as stream:
            data = ArrayProxy(stream, (shape, self._header.get_data_dtype(), MGH_HEADER_BYTES), mmap=False)
            for start in range(0, self.n_trials, step):
                with reading(self.path, f"is truncated or damaged at trial {start}"):
                    chunk = np.asarray(data[..., start : start + step])
                    if start + step >= self.n_trials:
                        read_to_end(stream)
                yield chunk[:, 0, 0].T

    def _annotation(self) -> npt.NDArray[Any]:
        """Read the number of each vertex's region, from 1 in the order of the table; 0 for none."""
        with reading(self.path, f"is not a readable {KIND}"):
            number, _, names = read_annot(self.path)
        self.labels = {index: name.decode(errors="replace") for index, name in enumerate(names, start=1)}
        return np.asarray(number) + 1

    def _gifti(self) -> GiftiImage:
        # From its bytes: without a name nibabel finds no file beside it that the data might be said to be in.
        with open_stream(self.path, KIND) as stream:
            image = GiftiImage.from_bytes(stream.read())
            for array in image.darrays:
                if array.ext_fname:
                    raise FileFormatError(
                        f"{self.path}: its data are in another file ({array.ext_fname}), which is not read: save them "
                        "into it."
                    )
                if not isinstance(array.data, np.ndarray) or array.data.dtype.kind not in "fiu":
                    raise FileFormatError(f"{self.path} holds an array without numbers.")
        return image


def read_vertices(path: str | Path) -> npt.NDArray[Any]:
    """Read one value per vertex (n_vertices,) from `.mgh`, `.mgz` or `.gii`.

    Raises
    ------
    InputError
        If the file is missing or holds more than one value per vertex.
    FileFormatError
        If it is damaged.
    """
    file = SurfaceFile(path)
    if file.n_trials != 1:
        raise InputError(
            f"{path} has {file.n_trials} values for each of {file.n_vertices}, expected one value per vertex."
        )
    values: npt.NDArray[Any] = next(file.trials(1))[0]
    return values


def n_vertices(path: str | Path | None) -> int:
    """Vertices of a hemisphere by a file of it; 0 without one."""
    return 0 if path is None else SurfaceFile(path).n_vertices


def check_hemispheres(left: str | Path | None, right: str | Path | None) -> None:
    """Refuse files of hemispheres that say they are the other ones, or that are the same file, or none at all.

    Raises
    ------
    InputError
        Naming both.
    """
    if left is None and right is None:
        raise InputError("neither hemisphere is given: pass a file of one or both.")
    files = {side: SurfaceFile(path) for side, path in (("left", left), ("right", right)) if path is not None}
    if len(files) == 2 and files["left"].path.samefile(files["right"].path):
        raise InputError(f"{left} is given for both hemispheres: pass the file of each.")
    for expected, file in files.items():
        if file.side not in (None, expected):
            raise InputError(
                f"{file.path} is given for the {expected} hemisphere but says that it is of the {file.side} one: pass "
                "the left one first."
            )


class SurfaceBetas:
    """Trials of a pair of surface files, left hemisphere first, or of one hemisphere alone.

    Parameters
    ----------
    left, right
        As `SurfaceFile` reads them; None where there is none.
    surface
        Vertices to read.

    Raises
    ------
    InputError
        If a file is missing, or the hemispheres are swapped, or disagree with one another or with the surface.
    FileFormatError
        If a file is damaged.
    """

    def __init__(self, left: str | Path | None, right: str | Path | None, surface: Surface) -> None:
        given = [path for path in (left, right) if path is not None]
        self.path, self.paths = Path(given[0]), tuple(map(Path, given))
        if surface.subcortex is not None:
            raise InputError(
                f"{self.path} is of the cortex alone, but {surface.subcortex.structures.size} voxels below it are "
                "looked at, too: pass a CIFTI file."
            )
        check_hemispheres(left, right)
        self._halves: list[tuple[SurfaceFile, npt.NDArray[np.bool_]]] = []
        for path, side, chosen in ((left, "left", surface.left), (right, "right", surface.right)):
            if path is not None and chosen.any():
                file = SurfaceFile(path)
                if file.n_vertices != chosen.size:
                    raise InputError(f"{path} has {file.n_vertices} vertices, but the surface has {chosen.size}.")
                self._halves.append((file, chosen))
            elif chosen.any():
                raise InputError(
                    f"{self.path} is given without a file of the {side} hemisphere, of which {int(chosen.sum())} "
                    "vertices are looked at, too: pass both, or a mask of one hemisphere."
                )
        counts = {file.path: file.n_trials for file, _ in self._halves}
        if len(set(counts.values())) > 1:
            found = " but ".join(f"{path} has {count} trials" for path, count in counts.items())
            raise InputError(f"{found}: get a new copy of both.")
        if not counts:
            raise InputError(f"{self.path} is of a hemisphere of which nothing is looked at: check the mask.")
        self.n_trials, self.n_voxels = next(iter(counts.values())), surface.n_chosen

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_vertices)) in order."""
        step = at_a_time(8 * sum(chosen.size for _, chosen in self._halves))
        halves = zip(*(file.trials(step) for file, _ in self._halves), strict=True)
        for start, parts in zip(range(0, self.n_trials, step), halves, strict=True):
            looked_at = [part[:, chosen] for part, (_, chosen) in zip(parts, self._halves, strict=True)]
            yield start, as_float32(np.concatenate(looked_at, axis=1))


def _side_in_name(path: Path) -> str | None:
    by_entity = {"L": "left", "R": "right"}.get(entities(path).get("hemi", "").upper()[:1])
    # lh.betas.mgh, sub-01.rh.func.gii, and 100307.L.func.gii as HCP writes it
    in_name = re.search(r"(?:^|[._-])(lh|rh)[._-]|\.(L|R)\..*gii$", path.name)
    by_name = {"lh": "left", "rh": "right", "L": "left", "R": "right"}
    return by_entity or (by_name[in_name.group(1) or in_name.group(2)] if in_name else None)


def _side_in_metadata(image: GiftiImage) -> str | None:
    said = [image.meta, *(array.meta for array in image.darrays[:1])]
    return next(
        (SIDES[meta["AnatomicalStructurePrimary"]] for meta in said if meta.get("AnatomicalStructurePrimary") in SIDES),
        None,
    )
