"""CIFTI-2 files: maps or trials over grayordinates, the vertices of both hemispheres and voxels below the cortex.

`.dtseries.nii` and `.dscalar.nii` hold (n_maps, n_grayordinates); `.dlabel.nii` whole numbers with a table of names.
Whatever the order of a file's axis, grayordinates come out as left vertices and right vertices, each in ascending
order, then voxels as they are listed; a `Surface` keeps the order that the axis had.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.cifti2.cifti2_axes import BrainModelAxis, LabelAxis, ScalarAxis, SeriesAxis

from braincorl.batching import at_a_time
from braincorl.datasets.betas.beta_files import THROUGH_SHARE, as_float32
from braincorl.datasets.betas.nifti import CIFTI_INTENTS
from braincorl.datasets.file_names import entities
from braincorl.datasets.meshes import surface_name
from braincorl.datasets.space import Subcortex, Surface
from braincorl.errors import FileFormatError, InputError
from braincorl.storage.files import check_regular, reading

KIND = "CIFTI file"
NIFTI2_HEADER = 540  # bytes, as the standard says
INTENT_AT = 504  # of `intent_code` in a NIfTI-2 header
LEFT, RIGHT = "CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"


def is_cifti(path: str | Path) -> bool:
    """Whether a file's header says that it is CIFTI.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    path = check_regular(path, "file")
    if path.suffix != ".nii":
        return path.name.endswith((".dscalar.nii.gz", ".dtseries.nii.gz", ".dlabel.nii.gz"))
    with reading(path, "is not readable"), path.open("rb") as file:
        start = file.read(NIFTI2_HEADER)
    for order in ("<", ">"):
        if len(start) == NIFTI2_HEADER and np.frombuffer(start[:4], f"{order}i4")[0] == NIFTI2_HEADER:
            return int(np.frombuffer(start[INTENT_AT : INTENT_AT + 4], f"{order}i4")[0]) in CIFTI_INTENTS
    return False


class CiftiFile:
    """A CIFTI-2 file over grayordinates, of which the header has been read.

    Parameters
    ----------
    path
        `.dtseries.nii`, `.dscalar.nii` or `.dlabel.nii`.

    Attributes
    ----------
    path
        The file.
    n_maps
        Rows: trials, or maps.
    names
        Of the maps; empty text in a series.
    labels
        Per map, number -> name, in a `.dlabel.nii`; else empty.
    surface
        All of its grayordinates.

    Raises
    ------
    InputError
        If the file is missing, or its axes are others.
    FileFormatError
        If it is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = check_regular(path, KIND)
        if self.path.suffix == ".gz":
            raise InputError(f"{path} is a compressed {KIND}, which programs cannot read in place: gunzip it first.")
        with reading(self.path, f"is not a readable {KIND}"):
            image: Any = nib.Cifti2Image.from_filename(self.path)
            axes = [image.header.get_axis(number) for number in range(len(image.shape))]
            self._shape = tuple(map(int, image.shape))
            stored = image.dataobj  # the header's own offset does not count the XML before the numbers
            self._type, self._offset = np.dtype(stored.dtype), int(stored.offset)
            self._slope, self._inter = float(stored.slope), float(stored.inter)
        if len(axes) != 2 or not isinstance(axes[1], BrainModelAxis) or self._shape != tuple(map(len, axes)):
            kinds = " x ".join(type(axis).__name__.removesuffix("Axis") for axis in axes)
            raise InputError(f"{path} has axes {kinds}, expected maps x grayordinates (.dtseries.nii, .dscalar.nii).")
        if not isinstance(axes[0], ScalarAxis | SeriesAxis | LabelAxis) or 0 in self._shape:
            raise InputError(f"{path} has rows of {type(axes[0]).__name__}, expected trials or maps.")
        if self._type.kind not in "fiu":
            raise FileFormatError(f"{path} holds values of type {self._type}, expected real numbers.")
        n_bytes = self._offset + int(np.prod(self._shape, dtype=object)) * self._type.itemsize
        if self.path.stat().st_size < n_bytes:
            raise FileFormatError(
                f"{path} is truncated: it has {self.path.stat().st_size:,} bytes, but its header needs {n_bytes:,}."
            )
        self.n_maps = self._shape[0]
        self.names = [str(name) for name in getattr(axes[0], "name", [""] * self.n_maps)]
        self.labels: list[Mapping[int, str]] = []
        if isinstance(axes[0], LabelAxis):
            self.labels = [{int(key): str(value[0]) for key, value in table.items()} for table in axes[0].label]
        self.surface, self._column = _understand(axes[1], self.path)

    def rows(self, start: int, stop: int, columns: npt.NDArray[np.intp] | None = None) -> npt.NDArray[np.float32]:
        """Read some maps (n, n_grayordinates), in the order of `surface`, or those of some columns of the file."""
        data = self._map()
        chosen = self._column if columns is None else columns
        with reading(self.path, "is truncated or damaged"):
            values = np.asarray(data[start:stop].take(chosen, axis=1))
        if (self._slope, self._inter) != (1.0, 0.0):
            with np.errstate(over="ignore", invalid="ignore"):
                values = values * self._slope + self._inter
        return as_float32(values)

    def _map(self) -> npt.NDArray[Any]:
        # All maps of a grayordinate lie together.
        with reading(self.path, "is truncated or damaged"):
            return np.memmap(self.path, self._type, mode="r", offset=self._offset, shape=self._shape, order="F")

    def columns_of(self, surface: Surface) -> npt.NDArray[np.intp]:
        """Where each place that a surface looks at is in the file (n_chosen,), -1 where the file has none.

        Raises
        ------
        InputError
            If the surfaces differ in their vertices, or the grids below the cortex in shape or affine.
        """
        own, parts = self.surface, []
        columns = own.split(self._column)
        for side, mine, theirs, column in (
            ("left", own.left, surface.left, columns[0]),
            ("right", own.right, surface.right, columns[1]),
        ):
            if mine.size and theirs.size and mine.size != theirs.size:
                raise InputError(
                    f"{self.path} is of a surface of {mine.size} vertices in the {side} hemisphere, but {theirs.size} "
                    "are expected: bring both to one surface."
                )
            at = np.full(max(mine.size, theirs.size), -1, dtype=np.intp)
            at[np.flatnonzero(mine)] = column
            parts.append(at[np.flatnonzero(theirs)])
        if surface.subcortex is not None:
            deep = np.full(surface.subcortex.structures.size, -1, dtype=np.intp)
            if own.subcortex is not None:
                if not own.subcortex.same_grid(surface.subcortex):
                    raise InputError(f"{self.path} has voxels below the cortex on another grid than expected.")
                where = np.full(int(np.prod(own.subcortex.shape)), -1, dtype=np.intp)
                where[own.subcortex.flat] = columns[2]
                deep = where[surface.subcortex.flat]
            parts.append(deep)
        return np.concatenate(parts)


class CiftiBetas:
    """Trials of a CIFTI file, at the places that a surface looks at; NaN where the file has none of them.

    Parameters
    ----------
    path
        The file, a row per trial.
    surface
        Places to read; by default all that the file has.

    Raises
    ------
    InputError
        If the file is missing, of labels, or of another surface.
    FileFormatError
        If it is damaged.
    """

    def __init__(self, path: str | Path, surface: Surface | None = None) -> None:
        self._file = CiftiFile(path)
        self.path = self._file.path
        if self._file.labels:
            raise InputError(f"{path} holds labels, expected betas: pass a .dtseries.nii or .dscalar.nii.")
        self.surface = surface or self._file.surface
        self._columns = self._file.columns_of(self.surface)
        if (self._columns < 0).all():
            raise InputError(f"{path} holds no value at any of the places that are looked at: check the mask.")
        self.n_trials, self.n_voxels = self._file.n_maps, self.surface.n_chosen

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_grayordinates)) in order."""
        step = at_a_time(8 * self.n_voxels, THROUGH_SHARE)
        for start in range(0, self.n_trials, step):
            block = self._file.rows(start, min(start + step, self.n_trials), np.maximum(self._columns, 0))
            block[:, self._columns < 0] = np.nan
            yield start, block


def _understand(axis: Any, path: Path) -> tuple[Surface, npt.NDArray[np.intp]]:
    """Tell what grayordinates an axis lists, and the column of each of them in our order."""
    names = np.asarray(axis.name, dtype=np.str_)
    vertices = np.asarray(axis.surface_mask)
    unknown = sorted(set(names[vertices].tolist()) - {LEFT, RIGHT})
    if unknown:
        raise InputError(f"{path} has vertices of {unknown[0]}, expected those of CORTEX_LEFT and CORTEX_RIGHT only.")
    halves, columns = [], []
    for name in (LEFT, RIGHT):
        rows = np.flatnonzero(vertices & (names == name))
        number = np.asarray(axis.vertex)[rows]
        chosen = np.zeros(int(axis.nvertices.get(name, 0)), dtype=bool)
        if number.size and not 0 <= number.min() <= number.max() < chosen.size:
            raise FileFormatError(f"{path} lists vertices that its surface of {chosen.size} does not have.")
        chosen[number] = True
        if int(chosen.sum()) != number.size:
            raise FileFormatError(f"{path} lists a vertex of {name} twice.")
        halves.append(chosen)
        columns.append(rows[np.argsort(number)])
    deep = np.flatnonzero(~vertices)
    subcortex = None
    if deep.size:
        if axis.affine is None or axis.volume_shape is None:
            raise FileFormatError(f"{path} lists voxels without the grid that they lie on.")
        size = tuple(map(int, axis.volume_shape))
        try:
            subcortex = Subcortex(
                names[deep],
                np.asarray(axis.voxel)[deep].astype(np.int64),
                (size[0], size[1], size[2]),
                np.asarray(axis.affine, dtype=np.float64),
            )
        except InputError as error:
            raise FileFormatError(f"{path}: {error}") from error
        if np.unique(subcortex.flat).size != deep.size:
            raise FileFormatError(f"{path} lists a voxel twice.")
        columns.append(deep)
    column = np.concatenate(columns)
    order = None
    if not np.array_equal(column, np.arange(column.size)):
        order = np.empty(column.size, dtype=np.int64)
        order[column] = np.arange(column.size)
    n_vertices = max(half.size for half in halves)
    name = surface_name(n_vertices, entities(path).get("space"))
    return Surface(halves[0], halves[1], name, subcortex, order), column


def brain_axis(surface: Surface) -> Any:
    """Axis of grayordinates that a surface came from, or the usual one: left, right, below.

    Returns
    -------
    nibabel.cifti2.BrainModelAxis
    """
    axes = [
        BrainModelAxis.from_surface(np.flatnonzero(chosen), chosen.size, name)
        for name, chosen in ((LEFT, surface.left), (RIGHT, surface.right))
        if chosen.any()
    ]
    if surface.subcortex is not None:
        deep = surface.subcortex
        axes.append(
            BrainModelAxis(name=deep.structures, voxel=deep.voxels, affine=deep.affine, volume_shape=deep.shape)
        )
    brain = axes[0]
    for axis in axes[1:]:
        brain = brain + axis
    return brain if surface.order is None else brain[surface.order]
